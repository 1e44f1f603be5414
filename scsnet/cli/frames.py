"""The frames of a film, coloured one after the other."""

from __future__ import annotations

import argparse

import av
import numpy as np
import torch
from torch import Tensor

from ..color import denormalize_lab
from ..features import Features, ReferenceFeatures
from ..films.margins import FilmMargins
from ..films.steadiness import CutFinder, SteadyColors
from ..films.write import to_planes
from ..model import SCSNet
from ..pipeline import decode_lab, encode_luminance, extract_luminance, finish_lab
from .session import retry_with_smaller_tiles

_TOPS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


class FrameColorizer:
    """Colours frames of a film as `size` = (height, width), in the pixel format `pixels` of the codec.

    It looks at all frames in their order, and colours those it is told to.

    Whole shots, from frames with which `look` says that one begins, get the same colours whatever was coloured before.
    """

    def __init__(
        self,
        net: SCSNet,
        size: tuple[int, int],
        pixels: str,
        reference: ReferenceFeatures | None,
        options: argparse.Namespace,
    ) -> None:
        self.net, self.size, self.pixels = net, size, pixels
        self.reference, self.options = reference, options
        self._margins = None if options.color_margins else FilmMargins()
        self._cuts = CutFinder()
        self._steady = None if options.independent_frames else SteadyColors()

    def look(self, rgb: np.ndarray) -> bool:
        """Take the next frame (H, W, 3), uint8 or uint16; return whether a shot begins with it."""
        self._dtype = rgb.dtype
        planes = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1), np.float32))
        self._luminance = extract_luminance(self.net, planes[None] / _TOPS[rgb.dtype])
        config = self.net.config
        self._inside = None
        if self._margins is not None:
            self._inside = self._margins.add(self._luminance, config)
        begins = self._cuts.add(denormalize_lab(self._luminance, config))
        if begins and self._steady is not None:
            self._steady.forget()
        return begins

    @torch.inference_mode()
    def color(self) -> av.VideoFrame:
        """Return the frame that was looked at last in colours."""

        def work(tile: int) -> tuple[Features, Tensor]:
            features = encode_luminance(
                self.net,
                self._luminance,
                self.reference,
                working_size=self.options.working_size,
                inside=self._inside,
                tile=tile,
            )
            return features, decode_lab(self.net, features, self.size, tile=tile)

        features, lab = retry_with_smaller_tiles(work)
        if self._steady is not None:
            lab = self._steady(lab)
        colored = finish_lab(
            self.net,
            features,
            lab,
            strength=self.options.strength,
            luminance="input" if self.options.keep_luminance else None,
        )
        values = colored[0].mul_(_TOPS[self._dtype]).round_().permute(1, 2, 0).cpu().numpy()
        return to_planes(values.astype(self._dtype), self.pixels)
