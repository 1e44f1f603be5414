"""Batches of any length through the network: a few pictures at a time, into one preallocated result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..scsnet import Features, ReferenceFeatures, SCSNet
from ..scsnet.color import normalize_lab, rgb_to_lightness
from ..scsnet.films.steadiness import SteadyColors
from ..scsnet.margins import find_margins
from ..scsnet.pipeline import (
    decode_lab,
    encode_picture,
    encode_references,
    extract_luminance,
    finish_lab,
    render,
)
from ..scsnet.resample import resample_bicubic, resize_masked
from ..scsnet.tiling import Window, enclose_windows
from . import host, memory_estimates
from .image_tensors import Picture, to_float
from .types import Lab, Model

ALPHA_BAND = 2**20  # pixels of alpha that are resized at a time


def split_batch(count: int, size: tuple[int, int]) -> list[slice]:
    """Split pictures 0 .. count - 1 into chunks: of one on the CPU, of up to 16 small ones on a GPU."""
    length = 1
    if host.compute_device().type != "cpu":
        length = max(1, min(16, memory_estimates.PIXELS_AT_ONCE // (size[0] * size[1])))
    return [slice(start, min(count, start + length)) for start in range(0, count, length)]


class References:
    """The encoded references of a batch of pictures; encoded once where they serve every picture."""

    def __init__(
        self, net: SCSNet, picture: Picture | None, mask: Tensor | None, one_per_picture: bool, working_size: int | None
    ) -> None:  # fmt: skip
        self.net, self.picture, self.mask, self.working_size = net, picture, mask, working_size
        self.one_per_picture = one_per_picture
        self.shared: ReferenceFeatures | None = None
        if picture is not None and not one_per_picture:
            self.shared = self._encode([slice(i, i + 1) for i in range(picture.count)])

    def _encode(self, parts: Sequence[slice]) -> ReferenceFeatures:
        assert self.picture is not None
        bound = self.working_size or self.net.config.working_size
        planes: list[Tensor] = []
        masks: list[Tensor | None] = []
        for part in parts:  # each is shrunk before the next is converted, which bounds the memory
            rgb, mask = to_float(self.picture.rgb[part], host.compute_device()), self.mask
            if mask is not None and mask.shape[0] > 1:
                mask = mask[part]
            rgb, mask = resize_masked(rgb, mask, bound)
            planes.append(rgb.expand(-1, 3, -1, -1))  # gray references have one channel
            masks.append(mask)
        return encode_references(self.net, planes, masks=masks, working_size=self.working_size)

    def for_pictures(self, part: slice) -> ReferenceFeatures | tuple[()]:
        """Return the references of a chunk of the pictures; () where there are none."""
        if self.picture is None:
            return ()
        return self._encode([part]) if self.one_per_picture else self.shared or ()


def _encode_picture(
    net: SCSNet, tiles: host.Tiles, rgb: Tensor, references: ReferenceFeatures | tuple[()], working_size: int | None,
    inside: Window | None, report: host.Report,
) -> Features:  # fmt: skip
    return tiles.run(
        lambda tile: encode_picture(
            net, rgb, references, working_size=working_size, inside=inside, tile=tile, progress=report
        )
    )  # fmt: skip


def find_shared_margins(net: SCSNet, picture: Picture) -> Window | None:
    """Return the part of all pictures inside the even margins that they share; None without margins."""
    found: list[Window] = []
    for rgb in picture.rgb.split(1):
        luminance = extract_luminance(net, to_float(rgb, host.compute_device()))
        if (part := find_margins(luminance, net.config)) is None:
            return None  # the other pictures need not be converted
        found.append(part)
    inside = enclose_windows(found)
    return None if inside == (0, 0, *picture.size) else inside


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


def _decode_steadily(
    net: SCSNet, tiles: host.Tiles, features: Features, steady: SteadyColors, report: host.Report
) -> tuple[Features, Tensor]:
    """Decode frames of a film at their own size -> the features with their shift of colours, LAB in CIE units."""
    largest = host.render_tile()
    lab = tiles.run(
        lambda tile: decode_lab(
            net, features, features.size, tile=min(tile, largest), progress=report
        )
    )
    steadied = steady(lab)
    shift = normalize_lab(steadied - lab, net.config)[:, 1:]
    if features.color_shift is not None:  # of hints, which `lab` has
        shift += F.interpolate(features.color_shift, features.size, mode="bilinear")
    return replace(features, color_shift=shift), steadied


def colorize(
    model: Model, picture: Picture, reference: Picture | None, mask: Tensor | None = None, *, one_per_picture: bool,
    working_size: int | None, strength: float, color_margins: bool, film: bool,
    on_features: Callable[[Features], None],
) -> tuple[Lab, Tensor]:  # fmt: skip
    """Colorize pictures; returns their SCS_LAB and their IMAGE, which keeps their size and luminance.

    `mask` (1 or B, 1, H, W) marks what of the references may give its colours. The colours of a `film` stay from picture to
    picture, until the next cut. `on_features` is called with the features
    of each chunk, those of the references included.
    LAB tensors stay on the compute device where they fit. Features go to the image device, normally the CPU: video
    memory that they held would be invisible to the host, which could not free it for another model.
    """
    device, size, count = host.compute_device(), picture.size, picture.count
    parts = split_batch(count, size)
    image = allocate_image(count, size, picture.alpha is not None)
    progress, tiles = host.Progress(count), host.Tiles()
    features, labs, lab_device, keep_texture = [], [], device, True
    steady = SteadyColors() if film else None
    estimate = memory_estimates.colorize_bytes(
        model, size, working_size or model.config.working_size, parts[0].stop
    )
    with host.use_network(model, estimate) as net:
        references = References(net, reference, mask, one_per_picture, working_size)
        inside = None if color_margins else find_shared_margins(net, picture)
        for part in parts:
            middle = (part.start + part.stop) / 2
            encoded = _encode_picture(
                net, tiles, to_float(picture.rgb[part], device), references.for_pictures(part), working_size,
                inside, progress.between(part.start, middle),
            )  # fmt: skip
            rendering, out = progress.between(middle, part.stop), image[part, ..., :3].movedim(3, 1)
            if steady is None:
                lab = torch.empty((part.stop - part.start, 3, *size), device=device)
                _render(
                    net, tiles, encoded, size, None, rendering, strength=strength, luminance="input", out=out,
                    lab_out=lab,
                )  # fmt: skip
            else:
                encoded, lab = _decode_steadily(net, tiles, encoded, steady, rendering)
                finish_lab(net, encoded, lab, strength=strength, luminance="input", out=out)
            on_features(encoded)
            if picture.alpha is not None:
                image[part, ..., 3:] = picture.alpha[part].movedim(1, 3)
            kept = replace(encoded, reference=None)
            if part.start == 0:  # the other chunks are as large
                chunks = count / part.stop
                lab_device = host.choose_lab_device(lab.nbytes * chunks)
                lab_bytes = lab.nbytes if lab_device == host.image_device() else 0
                keep_texture = host.has_room_to_spare((kept.nbytes + lab_bytes) * chunks)
                if not keep_texture:
                    rest = replace(kept, texture=None).nbytes + lab_bytes
                    host.check_room(rest * chunks, f"An SCS_LAB of {count} pictures")
            kept = kept if keep_texture else replace(kept, texture=None)
            features.append(kept.to(host.image_device()))
            labs.append(lab.to(lab_device))
    alpha = None if picture.alpha is None else picture.alpha.to(host.image_device())
    return Lab(model, tuple(features), tuple(labs), strength, alpha), image


def upscale(
    bundle: Lab, size: tuple[int, int], window: Window, luminance: Literal["input"] | Picture | None,
    strength: float,
) -> Tensor:  # fmt: skip
    """Render a window of the result of `size` -> IMAGE (B, window height, window width, 3 or 4). Runs CPM alone.

    `strength` multiplies the chroma, beside the bundle's own.
    """
    device = host.compute_device()
    image = allocate_image(bundle.count, (window.height, window.width), bundle.alpha is not None)
    progress, tiles, stop = host.Progress(bundle.count), host.Tiles(), 0
    with host.use_network(bundle.model, memory_estimates.upscale_bytes(bundle)) as net:
        for chunk in bundle.features:
            part = slice(stop, stop := stop + chunk.luminance.shape[0])
            new_luminance: Tensor | Literal["input"] | None
            if isinstance(luminance, Picture):
                which = part if luminance.count > 1 else slice(0, 1)
                new_luminance = rgb_to_lightness(to_float(luminance.rgb[which], device))
            else:
                new_luminance = luminance
            _render(
                net, tiles, chunk.to(device), size, window, progress.between(part.start, part.stop),
                strength=bundle.strength * strength, luminance=new_luminance, out=image[part, ..., :3].movedim(3, 1),
            )  # fmt: skip
            if bundle.alpha is not None:
                _resize_alpha(bundle.alpha[part], size, window, image[part, ..., 3:])
    return image


def _resize_alpha(alpha: Tensor, size: tuple[int, int], window: Window, out: Tensor) -> None:
    """Write a window of alpha (B, 1, H, W), resized to `size`, to out (B, window height, window width, 1)."""
    for band in window.blocks(max(1, ALPHA_BAND // window.width), window.width):
        rows = slice(band.top - window.top, band.bottom - window.top)
        out[:, rows] = resample_bicubic(alpha.float(), size, band).clamp(0, 1).movedim(1, 3)


def allocate_image(count: int, size: tuple[int, int], alpha: bool) -> Tensor:
    """Allocate an uninitialised IMAGE. Raises ValueError where memory does not suffice."""
    what = f"The result ({count} x {size[1]} x {size[0]} pixels)"
    host.check_room(memory_estimates.image_bytes(count, size, alpha), what)
    return torch.empty(
        (count, *size, 4 if alpha else 3), device=host.image_device(), dtype=host.image_dtype()
    )
