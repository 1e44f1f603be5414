"""Many pictures of one size on a GPU: the whole way recorded once as a CUDA graph, then replayed.

    replay = Replay(net, (8, 1, 128, 128), (512, 512))
    for photos in batches:  # (8, 1, 128, 128), sRGB in 0..1
        large = replay(photos)  # (8, 3, 512, 512)

Small pictures take a few hundred kernels of some microseconds each, about as long as it takes to ask
for them one by one; a graph asks for all at once. Speed unmeasured so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .features import ReferenceFeatures
from .model import SCSNet
from .pipeline import encode_picture, render

WARMING = 3  # runs before the recording: libraries choose algorithms and take their memory


class Replay:
    """`encode_picture` and `render` for one shape of pictures, one output size, and fixed references.

    ValueError without a CUDA device. Holds the memory of one run; later changes of the network's weights
    in place count, other weights and references do not.
    """

    def __init__(
        self,
        net: SCSNet,
        shape: tuple[int, int, int, int],
        size: tuple[int, int],
        references: Sequence[Tensor] | ReferenceFeatures = (),
        *,
        working_size: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        device = net.initial.weight.device
        if device.type != "cuda":
            raise ValueError(f"expected a network on a CUDA device, got one on {device}")
        self._net, self._references = net, references  # the graph reads their memory
        self._picture = torch.zeros(shape, device=device)

        def run() -> Tensor:
            features = encode_picture(net, self._picture, references, working_size=working_size)
            return render(net, features, size, dtype=dtype)

        with torch.cuda.device(device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARMING):
                    run()
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._result = run()

    def __call__(self, rgb: Tensor) -> Tensor:
        """Pictures (B, 1 or 3, H, W) of the shape recorded -> sRGB (B, 3, Ht, Wt), a tensor of its own."""
        if rgb.shape != self._picture.shape:
            expected, got = tuple(self._picture.shape), tuple(rgb.shape)
            raise ValueError(f"recorded for pictures {expected}, got shape {got}")
        self._picture.copy_(rgb)
        self._graph.replay()
        return self._result.clone()
