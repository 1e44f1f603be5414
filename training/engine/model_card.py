"""Write the weights of a run with their model card."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch

from scsnet import SCSNet, SCSNetConfig, checkpoint
from scsnet.cpm import CPM
from training.config import TrainConfig
from training.config.schedule import Schedule
from training.paths import save_text

WEIGHTS = "weights.safetensors"
CARD = "README.md"
"""Of a run; where the Hub looks for a model card."""
PICTURE = "validation.png"
REFERENCES = {
    "auto": "none",
    "own": "an elastic copy of itself",
    "swap": "another photo",
    "gray": "(no colour, true light and dark)",
}
"""Prefix of the figures of `training.evaluation.validation` -> the reference that a photo had."""


def load_averaged_network(state: Mapping[str, Any]) -> SCSNet:
    """Return the network of a checkpoint's state: the moving average if there is one."""
    net = SCSNet(SCSNetConfig.from_dict(state["network"]))
    if state["averaged"] is not None:
        weights = {
            k.removeprefix("module."): v for k, v in state["averaged"].items() if k != "n_averaged"
        }
    else:
        prefix = "net."
        weights = {
            k.removeprefix(prefix): v for k, v in state["model"].items() if k.startswith(prefix)
        }
    net.load_state_dict(weights)
    return net.eval()


def scale_chroma(net: SCSNet, a: float, b: float) -> None:
    """Multiply a and b of all results, by scaling the last layer of CPM. Raises ValueError.

    Over-saturated predictions lose PSNR on unseen photos; scaling the chroma down reduces the error.
    """
    for factor in (a, b):
        if not 0 < factor <= 2:
            raise ValueError(f"chroma must be above 0 and at most 2, got {factor}")
    if not isinstance(net.head, CPM):
        raise ValueError(f"chroma can be scaled where the head is cpm, got {net.config.head}")
    last = net.head.linears[-1]
    assert isinstance(last, torch.nn.Linear)  # 256 -> L, a, b
    with torch.no_grad():
        for parameter in (last.weight, last.bias):
            parameter[1:] *= parameter.new_tensor([a, b]).view(-1, *[1] * (parameter.ndim - 1))


def facts(
    config: TrainConfig, step: int, photos: int, figures: Mapping[str, float]
) -> dict[str, Any]:
    """Return the training facts for the weights file. Paths are reduced to their last part."""
    values = config.to_dict()
    for name in ("data", "validation"):
        values[name] = [Path(source).name for source in values[name]]
    for name in ("output", "perceptual_weights", "init", "prior"):
        source = str(values[name])
        values[name] = source if source.startswith("hf:") else Path(source).name
    return {
        "trained": date.today().isoformat(),
        "steps": step,
        "photos": photos,
        "figures": dict(figures),
        "training": values,
    }


def export(
    net: SCSNet,
    path: Path,
    config: TrainConfig,
    step: int,
    photos: int,
    figures: Mapping[str, float] | None = None,
    card_name: str = CARD,
    chroma: float = 1.0,
) -> Path:
    """Write weights (float16) and, beside them, the model card. Raises ValueError and OSError.

    `chroma` multiplies the ab of all results.
    """
    card = facts(config, step, photos, figures or {})
    if chroma != 1:
        net = copy.deepcopy(net)
        scale_chroma(net, chroma, chroma)
        card["chroma"] = chroma
    checkpoint.save(path, net, dtype=torch.float16, card=card)
    picture = PICTURE if (path.parent / PICTURE).exists() else ""
    save_text(path.parent / card_name, model_card(net, card, path.name, picture))
    return path


def figures_table(card: Mapping[str, Any]) -> Iterator[str]:
    """Yield the metrics of a validation as lines of Markdown."""
    figures, training = card["figures"], card["training"]
    if not figures:
        yield "There was no validation before this step."
        return
    schedule = Schedule(TrainConfig.from_dict(training), card["photos"])
    stage = schedule.at(max(0, min(int(figures["step"]), schedule.total) - 1)).stage
    yield (
        f"At step {figures['step']:g}, on at most {training['validation_count']} photos of "
        f"{', '.join(training['validation'])}: {stage.size} px, magnified by {stage.magnification[1]:g}."
    )
    if "chroma" in card:
        yield f"After that a and b of the results were multiplied by {card['chroma']:g}."
    yield ""
    yield "| reference | PSNR of sRGB, dB | mean error of ab | chroma over the truth's |"
    yield "|---|---|---|---|"
    for name, reference in REFERENCES.items():
        psnr, ab, chroma = (figures[f"{name}_{kind}"] for kind in ("psnr", "ab", "chroma"))
        yield f"| {reference} | {psnr:.2f} | {ab:.2f} | {chroma:.0%} |"


def front_matter(training: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the Hub's front matter that depend on the run. The licence is the publisher's to fill in."""
    yield "license: other"
    if training["init"].startswith("hf:"):
        yield f"base_model: {'/'.join(training['init'].removeprefix('hf:').split('@')[0].split('/')[:2])}"


def model_card(net: SCSNet, card: Mapping[str, Any], file: str, picture: str = "") -> str:
    """Return the model card with the front matter of the Hub. `picture`: file name of the validation picture."""
    training = card["training"]
    lines = [
        "---",
        *front_matter(training),
        "library_name: scsnet",
        "pipeline_tag: image-to-image",
        "tags:",
        "- colorization",
        "- super-resolution",
        "- scsnet",
        "---",
        "",
        "# SCSNet weights",
        "",
        "Colorization and continuous super-resolution of gray photos in one pass, automatic or by reference "
        "([SCSNet, AAAI 2022](https://arxiv.org/abs/2201.04364)).",
        "",
        f"Trained {card['trained']} for {card['steps']} steps on {card['photos']} photos "
        f"({', '.join(training['data'])}), from {training['init'] or 'random weights'}; colour branch at "
        f"{net.config.working_size} px. Seed {training['seed']}, {training['precision']}, moving average "
        f"{training['ema']:g}.",
        "",
        "## Use",
        "",
        "In ComfyUI: put the file into `models/scsnet` and pick it in *Load SCSNet*. On the command line:",
        "",
        f"    scsnet colorize --weights {file} photo.jpg -o colour.png",
        "",
        "## Figures during training",
        "",
        *figures_table(card),
    ]
    if picture:
        lines += [
            "",
            f"![validation photos]({picture})",
            "",
            "One photo per column. From the top: gray, automatic, an elastic copy as the reference, the "
            "result with it, the truth.",
        ]
    lines += ["", "## Network", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in net.config.to_dict().items()]
    for number, stage in enumerate(training["stages"], 1):
        lines += ["", f"## Stage {number}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in stage.items()]
    lines += [
        "",
        "## Limits",
        "",
        "Colours are plausible, not historical: the network cannot know what was there.",
        "",
    ]
    return "\n".join(lines)
