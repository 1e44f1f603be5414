"""Complete training configurations; every field of them can be changed by an option."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from scsnet import SCSNetConfig
from training.config.stage import Stage
from training.config.train_config import TrainConfig


def paper() -> TrainConfig:
    """The paper's network and training, Sec. 4.1: 128 -> 512 px, 50 epochs, batch 4, losses 10 : 5 : 1.

    Automatic and referential batches alternate. Eq. 7 is taken in its canonical form; `--adversarial-form paper` takes
    it as printed. The perceptual weights must have all five blocks of VGG16.
    """
    stage = Stage(
        epochs=50,
        batch=4,
        size=128,
        magnification=(4.0, 4.0),
        reference_fraction=0.5,
        learning_rate=1e-4,
        warmup=0,
        final_fraction=1.0,
        perceptual=5.0,
        adversarial=1.0,
        supervision=0.0,
        chroma_weight=0.0,
    )
    return TrainConfig(
        network=SCSNetConfig.paper(),
        stages=(stage,),
        augment=False,
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
    """From random weights to colours that follow a reference: half an hour on two CPU cores with bfloat16."""
    return TrainConfig(
        stages=(
            Stage(steps=2500, trains="all_but_texture", final_fraction=0.15),
            Stage(
                steps=500,
                batch=8,
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
    """The weights that ship, with --init and --prior as in the training guide: about 75 minutes on two CPU cores.

    First the colour branch learns from what the prior knows, at magnification 1, then everything together, at last psi_E
    and CPM alone.
    """
    colors = Stage(
        steps=2000,
        batch=12,
        size=96,
        reference_fraction=0.5,
        trains="color",
        learning_rate=1.5e-4,
        supervision=0.0,
        huber_delta=40.0,
        masks=0.4,
        others=0.2,
        degrade=0.25,
    )
    everything = replace(
        colors,
        steps=300,
        size=72,
        magnification=(1.0, 4.0),
        window=96,
        trains="everything",
        learning_rate=3e-5,
    )
    details = replace(
        everything,
        steps=500,
        batch=8,
        trains="details",
        learning_rate=2e-4,
        warmup=30,
        masks=0.0,
        others=0.0,
    )
    return TrainConfig(
        stages=(colors, everything, details),
        ema=0.998,
        cache=5.0,
        save_every=100,
        validate_every=500,
    )


def finetune() -> TrainConfig:
    """From the bundled weights to your own photos. Give photos to --validation: the best step is exported.

    Trains the colour branch alone. With 50 photos the best step was between 50 and 100; after it the network overfits.
    """
    return TrainConfig(
        init="bundled",
        stages=(
            Stage(
                steps=150,
                batch=8,
                size=64,
                magnification=(1.0, 4.0),
                window=64,
                reference_fraction=0.5,
                trains="color",
                learning_rate=1e-4,
                warmup=20,
                supervision=0.0,
                chroma_weight=0.0,
                huber_delta=40.0,
            ),
        ),
        ema=0.95,
        save_every=50,
        validate_every=25,
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    f.__name__: f for f in (paper, laptop, bundled, finetune)
}
