"""Weights out of a run: a file that the nodes and the command line open, and a model card."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import torch

from scsnet import SCSNet, SCSNetConfig, checkpoint
from scsnet.cpm import CPM
from training.config import TrainConfig
from training.config.cli import Parser
from training.engine import checkpoints
from training.engine.logging import LOG, read_last_figures
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
    """The network in a checkpoint's state: the moving average where there is one."""
    net = SCSNet(SCSNetConfig.from_dict(state["network"]))
    if state["averaged"] is not None:
        weights = {
            k.removeprefix("module."): v for k, v in state["averaged"].items() if k != "n_averaged"
        }
    else:
        prefix = "net."
        weights = {
            k.removeprefix(prefix): v for k, v in state["generator"].items() if k.startswith(prefix)
        }
    net.load_state_dict(weights)
    return net.eval()


def reconfigured(net: SCSNet, **changes: Any) -> SCSNet:
    """The same weights under another config, of fields that change no shapes. Errors: ValueError."""
    changed = SCSNet(replace(net.config, **changes))
    changed.load_state_dict(net.state_dict())
    return changed.eval()


def scale_chroma(net: SCSNet, a: float, b: float) -> None:
    """Multiply a and b of everything that the network makes, by the last layer of CPM. Errors: ValueError.

    Colours that are surer of themselves than they should be on photos not seen are wrong by less when paler.
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
    """What the weights file says about its training. Paths are cut down to their last part."""
    values = config.to_dict()
    for name in ("data", "validation"):
        values[name] = [Path(source).name for source in values[name]]
    for name in ("output", "perceptual_weights", "init"):
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
    """Write weights (float16) and, beside them, the model card. Errors: ValueError, OSError.

    chroma: what the ab that they make are multiplied by; 1 leaves them alone.
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
    """The figures of the run's last validation as Markdown, line by line."""
    figures, training = card["figures"], card["training"]
    if not figures:
        yield "None: there was no validation before this step."
        return
    stage = TrainConfig.from_dict(training).stages[-1]
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


def model_card(net: SCSNet, card: Mapping[str, Any], file: str, picture: str = "") -> str:
    """Markdown with the front matter that the Hub reads. `picture`: of the validation, beside the card."""
    training = card["training"]
    lines = [
        "---",
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
        f"({', '.join(training['data'])}); colour branch at {net.config.working_size} px.",
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


def main(arguments: list[str] | None = None) -> None:
    """`python training/export.py CHECKPOINT WEIGHTS.safetensors`: weights of any checkpoint of a run.

    The model card goes beside them: README.md in the run's own folder, WEIGHTS.md elsewhere.
    """
    parser = Parser(prog="export.py", description=main.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("weights", type=Path)
    parser.option(
        parser, "--chroma", type=float, default=1.0, help="multiply a and b of all results"
    )
    parser.option(
        parser,
        "--working-size",
        type=int,
        default=0,
        help="what the nodes let the colour branch look at, unless told otherwise; 0: what it was trained at",
    )
    parser.option(
        parser,
        "--attention-scale",
        type=float,
        default=0.0,
        help="factor on the cosines: the lower, the more places of a reference mix; 0: what it was trained with",
    )
    options = parser.parse(arguments)
    if options.weights.suffix != ".safetensors":
        parser.error(f"weights are a .safetensors file, got {options.weights}")
    try:
        state = checkpoints.load(options.checkpoint)
        config, step = TrainConfig.from_dict(state["config"]), state["step"]
        run = options.checkpoint.resolve().parent.parent
        figures = read_last_figures(run / LOG, step)
        at_home = options.weights.resolve().parent == run
        card = CARD if at_home else options.weights.with_suffix(".md").name
        net = load_averaged_network(state)
        asked = {
            "working_size": options.working_size or net.config.working_size,
            "attention_scale": options.attention_scale or net.config.attention_scale,
        }
        net = reconfigured(net, **asked)
        print(
            export(
                net, options.weights, config, step, state["photos"], figures, card, options.chroma
            )
        )
    except (checkpoints.RunError, ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
