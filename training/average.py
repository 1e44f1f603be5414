"""The mean of several weights: `python training/average.py --weights A B --shares 0.7 0.3 --output C.safetensors`.

Weights that come from a common start can be averaged number by number (Wortsman et al. 2022): of a fine-tuned network
and the one it began as, say, to keep what both know. Weights trained from different starts cannot.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import torch

from scsnet import SCSNet, checkpoint
from training.config.cli import Parser, parse_options
from training.export import reconfigured, scale_chroma
from training.paths import check_weights_name

Part = Literal["everything", "color", "encoders"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is averaged, and how."""

    weights: tuple[str, ...] = ()
    """Files, "bundled", or "hf:owner/repo"; of one kind of network."""
    shares: tuple[float, ...] = ()
    """Of each, in order; divided by their sum. Empty: equal ones. Above 1 or below 0 goes beyond."""
    part: Part = "everything"
    """color: only phi is averaged, encoders: of it all but phi_D; all else is that of the first."""
    chroma: tuple[float, float] = (1.0, 1.0)
    """What a and b of all results are multiplied by."""
    attention_scale: float = 0.0
    """Of the cosines of the attention, in the result: lower ones see more of a reference at once. 0: that of the first."""
    output: str = ""
    """A .safetensors file, float16."""

    def __post_init__(self) -> None:
        if len(self.weights) < 2:
            raise ValueError(f"expected two or more weights, got {len(self.weights)}")
        if self.shares and len(self.shares) != len(self.weights):
            raise ValueError(
                f"expected as many shares as weights, {len(self.weights)}, got {len(self.shares)}"
            )
        if self.shares and not abs(sum(self.shares)) > 1e-6:  # also for NaN
            raise ValueError(f"expected shares whose sum is not 0, got {self.shares}")
        if self.part not in get_args(Part):
            raise ValueError(f"expected part to be one of {get_args(Part)}, got {self.part!r}")
        if len(self.chroma) != 2:
            raise ValueError(f"expected two factors as chroma, got {len(self.chroma)}")
        check_weights_name(self.output)

    @property
    def fractions(self) -> tuple[float, ...]:
        """The shares, sum 1."""
        shares = self.shares or (1.0,) * len(self.weights)
        return tuple(share / sum(shares) for share in shares)


def mean_network(
    nets: Sequence[SCSNet], fractions: Sequence[float], part: Part = "everything"
) -> SCSNet:
    """The first network with every number of `part` replaced by the mean of all; sum of fractions 1.

    It remembers the largest working size. Errors: ValueError where the configs differ otherwise.
    """
    first = nets[0]
    for net in nets[1:]:
        here = replace(net.config, working_size=first.config.working_size)
        if here != first.config:
            raise ValueError(f"expected weights of {first.config}, got weights of {here}")
    states = [net.state_dict() for net in nets]
    with torch.no_grad():
        for name, tensor in states[0].items():
            if _belongs(name, part):
                shares = zip(states, fractions, strict=True)
                mean = torch.stack([s * state[name].float() for state, s in shares]).sum(0)
                tensor.copy_(mean)
    first.config = replace(first.config, working_size=max(net.config.working_size for net in nets))
    return first


def _belongs(name: str, part: Part) -> bool:
    """Whether a weight is of that part."""
    color = name.startswith("color_branch.")
    decoder = name.startswith("color_branch.decoder.")
    return {"everything": True, "color": color, "encoders": color and not decoder}[part]


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> one file."""
    parser = Parser(prog="average.py", description=__doc__)
    try:
        options = parse_options(parser, Options, arguments)
        nets = [checkpoint.load(source, dtype=torch.float32) for source in options.weights]
        net = mean_network(nets, options.fractions, options.part)
        if options.chroma != (1, 1):
            scale_chroma(net, *options.chroma)
        if options.attention_scale:
            net = reconfigured(net, attention_scale=options.attention_scale)
        averaged = [
            {
                "weights": source if source.startswith("hf:") else Path(source).name,
                "share": share,
                "card": dict(checkpoint.read_info(source).card),
            }
            for source, share in zip(options.weights, options.fractions, strict=True)
        ]
        card = {"averaged": averaged, "part": options.part, "chroma": list(options.chroma)}
        checkpoint.save(options.output, net, dtype=torch.float16, card=card)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(options.output)


if __name__ == "__main__":
    main()
