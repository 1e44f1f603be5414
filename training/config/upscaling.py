"""Options of Tables 6 and 7: RDN with heads for super-resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from training.config.stage import check_ranges
from training.config.train_config import Precision


class Sizes(NamedTuple):
    """Sizes of RDN and its heads, with the letters of the RDN paper."""

    channels: int
    """G0: channels of the features, which are the input of the heads."""
    blocks: int
    """D: residual dense blocks."""
    layers: int
    """C: layers of a block."""
    growth: int
    """G: channels that each layer adds."""
    hidden: int
    """Hidden channels of CPM, Meta-SR and LIIF."""


SIZES = {"small": Sizes(32, 4, 3, 32, 64), "paper": Sizes(64, 16, 8, 64, 256)}


@dataclass(frozen=True, kw_only=True)
class UpscalingConfig:
    """Options of Tables 6 and 7. All rows are trained on the same photos, for the same steps, from the same seed."""

    data: tuple[str, ...] = ()
    """Photos: folders (searched recursively), lists (.txt, a path per line), shards (.tar). Those smaller than the largest
    target are not used."""
    validation: tuple[str, ...] = ()
    """Sets of photos to evaluate on, such as Set14 B100 DIV2K; each has its own columns."""
    output: str = ""
    """Folder of the tables, the plot and the rows."""
    photos: int = 20
    """Number of photos of each set, spread evenly over it. 0: all."""
    rdn: Literal["small", "paper"] = "small"
    """Size of the network: G0 = 32, D = 4, C = 3, G = 32 and heads of 64 hidden features, or the papers' 64, 16, 8, 64 and
    256."""
    steps: int = 1000
    """Optimizer steps of each row."""
    batch: int = 8
    """Patches per step."""
    patch: int = 32
    """Side of the input patches."""
    magnification: tuple[float, float] = (1.0, 4.0)
    """Range from which the magnification of a step is drawn, uniformly, for the continuous heads."""
    learning_rate: float = 1e-3
    """Peak learning rate of Adam; cosine decay."""
    precision: Precision = "float32"
    """Precision of the training and of Table 7; the evaluation is in float32."""
    seed: int = 0
    """Seed of the initial weights and of the patches."""
    save_every: int = 250
    """Steps between checkpoints, from which an interrupted row continues."""

    def __post_init__(self) -> None:
        check_ranges(self, "steps batch save_every", 1)
        check_ranges(self, "patch", 8)
        check_ranges(self, "photos", 0)
        check_ranges(self, "seed", 0, 2**63 - 1)
        low, high = self.magnification
        if not 1 <= low <= high <= 64:
            raise ValueError(f"magnification must be 1 <= low <= high <= 64, got {low} {high}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
