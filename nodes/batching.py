"""Batches of any length through the network: a few pictures at a time, into one preallocated result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..scsnet import Features, ReferenceFeatures, SCSNet
from ..scsnet.color import rgb_to_lightness
from ..scsnet.pipeline import encode_picture, encode_references, render
from ..scsnet.resample import resample_bicubic, resize_to_working_size
from ..scsnet.tiling import Window
from . import host, memory_estimates
from .image_tensors import Picture, to_float
from .types import Lab, Model

BAND = 2**20  # pixels of alpha at a time


def chunks(count: int, size: tuple[int, int]) -> list[slice]:
    """The pictures 0 .. count - 1 in runs of a few: one at a time on the CPU, small ones together on a GPU."""
    at_once = 1
    if host.compute_device().type != "cpu":
        at_once = max(1, min(16, memory_estimates.PIXELS_AT_ONCE // (size[0] * size[1])))
    return [slice(start, min(count, start + at_once)) for start in range(0, count, at_once)]


class References:
    """The references of a batch of pictures, encoded once where they serve every picture."""

    def __init__(
        self, net: SCSNet, picture: Picture | None, one_per_picture: bool, working_size: int | None
    ) -> None:
        self.net, self.picture, self.working_size = net, picture, working_size
        self.one_per_picture = one_per_picture
        self.shared: ReferenceFeatures | None = None
        if picture is not None and not one_per_picture:
            self.shared = self._encode([slice(i, i + 1) for i in range(picture.count)])

    def _encode(self, which: Sequence[slice]) -> ReferenceFeatures:
        assert self.picture is not None
        bound = self.working_size or self.net.config.working_size
        planes = []
        for part in which:  # made small at once: many large ones would not fit together
            rgb = resize_to_working_size(
                to_float(self.picture.rgb[part], host.compute_device()), bound
            )
            planes.append(rgb.expand(-1, 3, -1, -1))  # gray references are legal
        return encode_references(self.net, planes, working_size=self.working_size)

    def of(self, part: slice) -> ReferenceFeatures | tuple[()]:
        """Those of a chunk of the pictures."""
        if self.picture is None:
            return ()
        return self._encode([part]) if self.one_per_picture else self.shared or ()


def _encode(
    net: SCSNet, tiles: host.Tiles, rgb: Tensor, near: ReferenceFeatures | tuple[()], working_size: int | None,
    report: host.Report,
) -> Features:  # fmt: skip
    largest = host.render_tile()
    return tiles.run(
        lambda tile: encode_picture(
            net, rgb, near, working_size=working_size, tile=min(tile, largest), progress=report
        )
    )


def _render(
    net: SCSNet, tiles: host.Tiles, features: Features, size: tuple[int, int], window: Window | None, report: host.Report,
    **options: Any,
) -> None:  # fmt: skip
    largest = host.render_tile()
    tiles.run(
        lambda tile: render(
            net, features, size, window, tile=min(tile, largest), progress=report, **options
        )
    )


def colorize(
    model: Model, picture: Picture, reference: Picture | None, *, one_per_picture: bool, working_size: int | None,
    strength: float, seen: Callable[[Features], None],
) -> tuple[Lab, Tensor]:  # fmt: skip
    """Pictures -> what can be rendered at any size, and the IMAGE at their own size with their own luminance.

    `seen` is called with the features of each chunk, references included.
    """
    device, size, count = host.compute_device(), picture.size, picture.count
    parts = chunks(count, size)
    image = new_image(count, size, picture.alpha is not None)
    progress, tiles = host.Progress(count), host.Tiles()
    features, labs, place, keep_texture = [], [], device, True
    estimate = memory_estimates.colorize_bytes(
        model, size, working_size or model.config.working_size, parts[0].stop
    )
    with host.on_device(model, estimate) as net:
        references = References(net, reference, one_per_picture, working_size)
        for part in parts:
            middle = (part.start + part.stop) / 2
            rgb = to_float(picture.rgb[part], device)
            encoded = _encode(
                net,
                tiles,
                rgb,
                references.of(part),
                working_size,
                progress.between(part.start, middle),
            )
            lab = torch.empty((part.stop - part.start, 3, *size), device=device)
            _render(
                net, tiles, encoded, size, None, progress.between(middle, part.stop), strength=strength,
                luminance="input", out=image[part, ..., :3].movedim(3, 1), lab_out=lab,
            )  # fmt: skip
            seen(encoded)
            if picture.alpha is not None:
                image[part, ..., 3:] = picture.alpha[part].movedim(1, 3)
            kept = replace(encoded, reference=None)
            if part.start == 0:  # the others will be as large
                bare = kept.nbytes - (0 if kept.texture is None else kept.texture.nbytes)
                total = [(n + lab.nbytes) * count / part.stop for n in (kept.nbytes, bare)]
                place, keep_texture = host.place(total[0])
                if not keep_texture:
                    host.check_room(total[1], f"An SCS_LAB of {count} pictures", place)
            features.append((kept if keep_texture else replace(kept, texture=None)).to(place))
            labs.append(lab.to(place))
    alpha = None if picture.alpha is None else picture.alpha.to(host.image_device())
    return Lab(model, tuple(features), tuple(labs), strength, alpha), image


def upscale(
    bundle: Lab, size: tuple[int, int], window: Window, luminance: Literal["input"] | Picture | None
) -> Tensor:
    """A window of the result of `size` -> IMAGE (count, window height, window width, 3 or 4). CPM only, no encoder."""
    device = host.compute_device()
    image = new_image(bundle.count, (window.height, window.width), bundle.alpha is not None)
    progress, tiles, stop = host.Progress(bundle.count), host.Tiles(), 0
    with host.on_device(bundle.model, memory_estimates.upscale_bytes(bundle)) as net:
        for chunk in bundle.features:
            part = slice(stop, stop := stop + chunk.luminance.shape[0])
            given: Tensor | Literal["input"] | None
            if isinstance(luminance, Picture):
                which = part if luminance.count > 1 else slice(0, 1)
                given = rgb_to_lightness(to_float(luminance.rgb[which], device))
            else:
                given = luminance
            _render(
                net, tiles, chunk.to(device), size, window, progress.between(part.start, part.stop),
                strength=bundle.strength, luminance=given, out=image[part, ..., :3].movedim(3, 1),
            )  # fmt: skip
            if bundle.alpha is not None:
                _alpha(bundle.alpha[part], size, window, image[part, ..., 3:])
    return image


def _alpha(alpha: Tensor, size: tuple[int, int], window: Window, out: Tensor) -> None:
    """A window of alpha (B, 1, H, W) resized to `size` -> out (B, window height, window width, 1), in bands of rows."""
    for band in window.blocks(max(1, BAND // window.width), window.width):
        rows = slice(band.top - window.top, band.bottom - window.top)
        out[:, rows] = resample_bicubic(alpha.float(), size, band).clamp(0, 1).movedim(1, 3)


def new_image(count: int, size: tuple[int, int], alpha: bool) -> Tensor:
    """An IMAGE to be filled. Errors: ValueError where there is no room for it."""
    what = f"The result ({count} x {size[1]} x {size[0]} pixels)"
    host.check_room(memory_estimates.image_bytes(count, size, alpha), what)
    return torch.empty(
        (count, *size, 4 if alpha else 3), device=host.image_device(), dtype=host.image_dtype()
    )
