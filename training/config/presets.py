"""Whole runs as functions: each returns a config, any field of which an option can change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from scsnet import SCSNetConfig
from training.config.stage import Stage
from training.config.train_config import TrainConfig


def paper() -> TrainConfig:
    """Sec. 4.1 to the letter: 128 -> 512, 50 epochs, batch 4, 10 : 5 : 1, auto and reference in turn.

    Instance norm and plain attention hardly use the reference (README, "What learns"); Eq. 7 is taken in
    its canonical form, as printed with --adversarial-form paper.
    """
    stage = Stage(
        epochs=50,
        batch=4,
        size=128,
        magnification=(4.0, 4.0),
        automatic_every=2,
        learning_rate=1e-4,
        warmup=0,
        final_fraction=1.0,
        content=10.0,
        perceptual=5.0,
        adversarial=1.0,
        supervision=0.0,
        rebalance=0.0,
    )
    return TrainConfig(
        network=SCSNetConfig.paper(),
        stages=(stage,),
        siamese=False,
        precision="float32",
        betas=(0.9, 0.999),
        weight_decay=1e-4,
        clip=0.0,
        ema=0.0,
        workers=4,
        save_every=1000,
        validate_every=5000,
    )


def laptop() -> TrainConfig:
    """From nothing to colours that follow a reference: half an hour on two CPU cores that multiply bf16."""
    return TrainConfig(
        stages=(
            Stage(steps=2500, batch=16, size=48, texture=False, final_fraction=0.15),
            Stage(
                steps=500,
                batch=8,
                size=48,
                magnification=(1.0, 4.0),
                window=64,
                learning_rate=2e-4,
                warmup=50,
                supervision=0.0,
            ),
        ),
        save_every=100,
        validate_every=500,
    )


def bundled() -> TrainConfig:
    """The recipe of the weights that ship, from what start.py and teacher.py make: coarse colours, pictures, sharp ones,
    and once more from what they know then.

    The first two stages have no references: what brings their colours is fitted in no time, and the third learns to use it.
    """
    coarse = Stage(
        batch=16,
        size=64,
        coarse=True,
        automatic_every=1,
        learns="color",
        warmup=30,
        final_fraction=0.02,
        supervision=0.0,
        teaching=40.0,
        rebalance=0.0,
        redness=4.0,
        softness=40.0,
    )
    pictures = replace(
        coarse,
        coarse=False,
        batch=12,
        learning_rate=3e-4,
        encoder_rate=0.2,
        automatic_every=3,
        reference_every=2,
        strangers_every=6,
    )
    # what the teacher knows is learnt by now: the photos alone, at last their greens and blues more than what is warm or gray
    untaught = replace(pictures, teaching=0.0, warmup=20)
    coherent = replace(untaught, coldness=1.5, coherence=0.5)
    # a teacher that knows more, asked for the likelier colours: where it is sure, phi may be too
    bold = replace(
        coherent,
        size=96,
        teaching=50.0,
        temperature=0.75,
        rebalance=0.25,
        encoder_rate=0.3,
        strangers_every=4,
    )
    bold_coarse = replace(bold, coarse=True, batch=16, reference_every=4)
    bold_pictures = replace(bold, batch=8, rebalance=0.5, coldness=1.0, teaching=30.0)
    # as in use: 128 px, of which the colour branch sees 96; where grass may be earth, grass is asked for
    green = replace(
        bold_pictures,
        size=128,
        working_sizes=(96,),
        teaching=80.0,
        temperature=0.65,
        coldness=2.5,
        stretch=(1.3, 0.9),
        strangers_every=3,
        degrade=0.1,
    )
    sharp = Stage(
        steps=480,
        batch=8,
        size=64,
        magnification=(1.0, 4.0),
        window=96,
        learns="texture",
        reference_every=2,
        learning_rate=3e-4,
        warmup=80,
        supervision=0.0,
        rebalance=0.0,
        softness=40.0,
        degrade=0.1,
    )
    return TrainConfig(
        init="start.safetensors",
        teacher="teacher.safetensors",
        stages=(
            replace(coarse, steps=600, learning_rate=7e-4, encoder_rate=0.0, final_fraction=0.7),
            replace(coarse, steps=3700, learning_rate=5e-4, encoder_rate=0.25),
            replace(pictures, steps=1000, references_anew=True),
            replace(pictures, steps=1700),
            replace(untaught, steps=480, learning_rate=2e-4, strangers_every=8),
            replace(untaught, steps=500, coldness=1.5, strangers_every=7),
            replace(coherent, steps=1200, strangers_every=2, warmup=30, final_fraction=0.1),
            replace(coherent, steps=520, batch=8, size=96, strangers_every=4, learning_rate=2.5e-4),
            sharp,
            replace(bold_coarse, steps=1150, head_anew=True),
            replace(bold_coarse, steps=1500),
            replace(bold_pictures, steps=600, learning_rate=2.5e-4),
            replace(sharp, steps=360),
            replace(
                bold_pictures,
                steps=140,
                learning_rate=1.5e-4,
                warmup=10,
                final_fraction=0.05,
                stretch=(1.3, 0.9),
            ),
            replace(green, steps=520, learning_rate=2.5e-4),
            replace(
                green,
                steps=150,
                teaching=60.0,
                temperature=0.6,
                coldness=1.5,
                rebalance=1.0,
                coherence=0.7,
                stretch=(1.5, 1.0),
                learning_rate=1.5e-4,
                warmup=10,
                final_fraction=0.04,
            ),
        ),
        ema=0.995,
        perceptual_float32=False,
    )


def finetune() -> TrainConfig:
    """From the bundled weights to your own photos, in minutes. Careful: what they know is worth more than 50 photos."""
    return TrainConfig(
        init="bundled",
        stages=(
            Stage(
                steps=300,
                batch=8,
                size=64,
                magnification=(1.0, 4.0),
                window=64,
                reference_every=2,
                learning_rate=2e-5,
                warmup=100,
                supervision=0.0,
                rebalance=0.15,
                softness=40.0,
            ),
        ),
        ema=0.99,
        save_every=100,
        validate_every=100,
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    f.__name__: f for f in (paper, laptop, bundled, finetune)
}
