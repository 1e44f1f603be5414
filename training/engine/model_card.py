"""Export the weights of a run with their model card."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch

from scsnet import SCSNet, SCSNetConfig, checkpoint
from scsnet.cpm import CPM
from training.config import TrainConfig
from training.config.schedule import Schedule
from training.text import format_table, save_text

WEIGHTS = "weights.safetensors"
CARD = "README.md"  # where the Hub looks for a model card
PICTURE = "validation.png"
REFERENCES = {
    "auto": "none",
    "own": "an elastic copy of itself",
    "swap": "another photo",
    "gray": "(no colour, true light and dark)",
}
"""Prefix of the metrics of `training.evaluation.validation` -> the reference that a photo had."""


def load_averaged_network(state: Mapping[str, Any]) -> SCSNet:
    """Return the network in the state of a checkpoint, its moving average if there is one, in eval mode."""
    net = SCSNet(SCSNetConfig.from_dict(state["network"]))
    averaged = state["averaged"] is not None
    weights, prefix = (state["averaged"], "module.") if averaged else (state["model"], "net.")
    net.load_state_dict(
        {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    )
    return net.eval()


def scale_chroma(net: SCSNet, factor: float) -> None:
    """Multiply a and b of all results, by scaling the last layer of CPM in place. Raises ValueError.

    Over-saturated predictions lose PSNR on unseen photos; scaling the chroma down reduces the error.
    """
    if not 0 < factor <= 2:
        raise ValueError(f"chroma must be above 0 and at most 2, got {factor}")
    if not isinstance(net.head, CPM):
        raise ValueError(f"chroma can be scaled where the head is cpm, got {net.config.head}")
    last = net.head.linears[-1]  # 256 -> L, a, b
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight[1:] *= factor
        last.bias[1:] *= factor


def remove_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a config, with paths reduced to their last part."""
    values = dict(config)
    for name in ("data", "validation"):
        values[name] = [Path(source).name for source in values[name]]
    for name in ("output", "perceptual_weights", "init", "prior"):
        source = str(values[name])
        values[name] = source if source.startswith("hf:") else Path(source).name
    return values


def export(
    net: SCSNet,
    path: Path,
    config: TrainConfig,
    step: int,
    photos: int,
    figures: Mapping[str, float],
    card_name: str = CARD,
    chroma: float = 1.0,
) -> Path:
    """Write weights (float16) and, beside them, the model card; return the path of the weights. Raises ValueError and OSError.

    `figures`: metrics of the last validation. `chroma` multiplies a and b of all results; `net` itself is not changed.
    """
    card: dict[str, Any] = {"trained": date.today().isoformat(), "steps": step, "photos": photos}
    card |= {"figures": dict(figures), "training": remove_paths(config.to_dict())}
    if chroma != 1:
        net = copy.deepcopy(net)
        scale_chroma(net, chroma)
        card["chroma"] = chroma
    checkpoint.save(path, net, dtype=torch.float16, card=card)
    picture = PICTURE if (path.parent / PICTURE).exists() else ""
    save_text(path.parent / card_name, format_card(net, card, path.name, picture))
    return path


def format_figures(card: Mapping[str, Any]) -> str:
    """Format the metrics of the last validation as Markdown."""
    figures, training = card["figures"], card["training"]
    if not figures:
        return "There was no validation before this step."
    schedule = Schedule(TrainConfig.from_dict(training), card["photos"])
    stage = schedule.at(max(0, min(int(figures["step"]), schedule.total) - 1)).stage
    lines = [
        f"At step {figures['step']:g}, on at most {training['validation_count']} photos of "
        f"{', '.join(training['validation'])}: {stage.size} px, magnified by {stage.magnification[1]:g}."
    ]
    if "chroma" in card:
        lines += [f"After that a and b of the results were multiplied by {card['chroma']:g}."]
    rows = []
    for name, reference in REFERENCES.items():
        psnr, ab, chroma = (figures[f"{name}_{kind}"] for kind in ("psnr", "ab", "chroma"))
        rows.append([reference, f"{psnr:.2f}", f"{ab:.2f}", f"{chroma:.0%}"])
    header = ["reference", "PSNR of sRGB, dB", "mean error of ab", "chroma over the truth's"]
    return "\n".join([*lines, "", *format_table(header, rows)])


CARD_TEMPLATE = """\
---
license: other{base}
library_name: scsnet
pipeline_tag: image-to-image
tags:
- colorization
- super-resolution
- scsnet
---

# SCSNet weights

Colorization and continuous super-resolution of gray photos in one pass, automatic or by reference \
([SCSNet, AAAI 2022](https://arxiv.org/abs/2201.04364)).

Trained {trained} for {steps} steps on {photos} photos ({data}), from {init}; colour branch at {working_size} px. Seed {seed}, \
{precision}, moving average {ema:g}.

## Use

In ComfyUI: put the file into `models/scsnet` and pick it in *Load SCSNet*. On the command line:

    scsnet colorize --weights {file} photo.jpg -o colour.png

## Figures during training

{figures}

{fields}

## Limits

Colours are plausible, not historical: the network cannot know what was there.
"""
"""The licence is the publisher's to fill in."""
PICTURE_TEMPLATE = """

![validation photos]({})

One photo per column. From the top: gray, automatic, an elastic copy as the reference, the result with it, the truth."""


def format_card(net: SCSNet, card: Mapping[str, Any], file: str, picture: str = "") -> str:
    """Return the model card with the front matter of the Hub. `picture`: file name of the validation picture."""
    training = card["training"]
    base, init = "", training["init"]
    if init.startswith("hf:"):
        repo = init.removeprefix("hf:").split("@")[0].split("/")[:2]
        base = f"\nbase_model: {'/'.join(repo)}"
    sections = {"Network": net.config.to_dict()}
    sections |= {f"Stage {n}": stage for n, stage in enumerate(training["stages"], 1)}
    tables = [
        "\n".join([f"## {title}\n", *format_table(["", ""], values.items())])
        for title, values in sections.items()
    ]
    facts = training | card | {"base": base, "file": file, "fields": "\n\n".join(tables)}
    facts |= {"data": ", ".join(training["data"]), "init": init or "random weights"}
    facts["figures"] = format_figures(card) + (PICTURE_TEMPLATE.format(picture) if picture else "")
    return CARD_TEMPLATE.format(working_size=net.config.working_size, **facts)
