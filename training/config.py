"""What a training run is: one dataclass, saved as JSON beside the run, and presets as functions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class TrainConfig:
    """Every choice of a run. Sizes are in pixels, low resolution unless said otherwise."""

    data: str = ""
    """Folder of photos, searched recursively."""
    output: str = ""
    """Folder of the run: checkpoints, log, weights."""
    validation: str = ""
    """Folder of photos for the figures during the run; empty: none."""
    init: str = ""
    """Weights file to start from; empty: a fresh network with a siamese start."""
    steps: int = 6000
    batch: int = 16
    size: int = 48
    """Side of the gray input."""
    working_sizes: tuple[int, ...] = ()
    """Working sizes of the colour branch to draw from; empty: the input's own size."""
    magnification: tuple[float, float] = (1.0, 1.0)
    """Range that the magnification of a batch is drawn from."""
    window: int = 0
    """Side of the random window of the output that the loss looks at; 0: all of it."""
    texture: bool = True
    """Train psi_E; otherwise it is left out (F_tex = F_init, as its blocks start)."""
    automatic_every: int = 3
    """Every n-th batch is automatic, the others have references."""
    learning_rate: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 100
    final_fraction: float = 0.03
    """Learning rate at the end of the cosine, as a fraction of the highest."""
    clip: float = 20.0
    """Largest gradient norm."""
    supervision: float = 1.0
    """Weight of the deep supervision at the start; it fades to 0 in the first half."""
    rebalance: float = 0.5
    """Automatic batches: a pixel weighs 1 + rebalance * chroma / 20, against sepia."""
    ema: float = 0.999
    bf16: bool = True
    seed: int = 0
    save_every: int = 250
    validate_every: int = 500
