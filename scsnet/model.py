"""SCSNet: encode a gray picture once, decode it at any size (Fig. 3).

    L ──initial──▶ F_init ─phi_E^s─▶ F_s ─[PVCAttn with F_r]─▶ F_int ─extractor, phi_D─▶ F_color
                   F_init ─psi_E──▶ F_tex
    cat(F_tex, F_color), output grid ─CPM─▶ LAB, any size, any window

Planes are normalised LAB (see `scsnet.color`) on the device of the weights; `scsnet.pipeline` converts from and to sRGB.
B pictures of Hs x Ws pixels, output grid of Ht x Wt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import KeysValues
from .color_branch import ColorBranch
from .config import SCSNetConfig
from .cpm import CPM, Axis, PixelShuffle, build_axis
from .cpm.pixel_shuffle import FACTOR
from .features import Features, ReferenceFeatures
from .layers import channels_last, conv3x3
from .resample import (
    STRIDE,
    compute_centred_taps,
    pad_to_stride,
    resample,
    resample_bicubic,
    resample_features,
    resize_masked,
    resize_to_working_size,
    spread_marked_colors,
)
from .texture import TILE, TextureEncoder, encode_texture, encode_texture_window
from .tiling import Window, crop, join_blocks, validate_window

Progress = Callable[[int, int], None]
"""Called with (tiles done, tiles in total) after each tile; an exception that it raises stops the work."""

TILE_KEPT = 192
"""Side of a tile in source pixels on a CPU if F_tex is kept, so that tiles need no margin: F_cs takes 18 MiB."""
KEPT_TEXTURE = 256 * 2**20
"""Largest F_tex in bytes that `encode` computes and keeps; a larger one is computed by `decode`, tile by tile."""


def pair_masks(
    references: Sequence[Tensor], masks: Sequence[Tensor | None]
) -> list[tuple[Tensor, Tensor | None]]:
    """Return each reference with its mask; no masks at all are a None each. Raises ValueError for another number."""
    masks = masks or [None] * len(references)
    if len(masks) != len(references):
        raise ValueError(f"expected {len(references)} masks, one each, got {len(masks)}")
    return list(zip(references, masks, strict=True))


def shift_colors(lab: Tensor, features: Features, size: tuple[int, int], window: Window) -> Tensor:
    """Return LAB (B, 3, n, m) of a window of the output grid with the shift of a and b, if there is one, added."""
    if (shift := features.color_shift) is None:
        return lab
    height, width = shift.shape[2:]
    rows = compute_centred_taps(height, size[0], window.top, window.bottom, lab.device)
    columns = compute_centred_taps(width, size[1], window.left, window.right, lab.device)
    return torch.cat([lab[:, :1], lab[:, 1:] + resample(shift, rows, columns)], dim=1)


def remove_margin_colors(
    lab: Tensor, features: Features, size: tuple[int, int], window: Window
) -> Tensor:
    """Return LAB (B, 3, n, m) of a window of the output grid with a = b = 0 in the margins, if there are any."""
    if features.inside is None:
        return lab
    inside, (height, width) = features.inside, features.size
    rows = (torch.arange(window.top, window.bottom, device=lab.device) + 0.5) * height / size[0]
    columns = (torch.arange(window.left, window.right, device=lab.device) + 0.5) * width / size[1]
    kept_rows = (rows >= inside.top) & (rows < inside.bottom)
    kept_columns = (columns >= inside.left) & (columns < inside.right)
    kept = (kept_rows[:, None] & kept_columns).to(lab.dtype).expand(1, 1, -1, -1)
    return lab * torch.cat([torch.ones_like(kept), kept, kept], dim=1)


def correct_colors(
    lab: Tensor, features: Features, size: tuple[int, int], window: Window
) -> Tensor:
    """Return LAB (B, 3, n, m) of a window of the output grid with `shift_colors` and `remove_margin_colors` applied."""
    lab = shift_colors(lab, features, size, window)
    return remove_margin_colors(lab, features, size, window)


def locate_inside(
    point: tuple[float, float], size: tuple[int, int], inside: Window
) -> tuple[float, float]:
    """Return a point (x, y), in 0..1 of a picture of `size`, in 0..1 of its window `inside`, clamped to it."""
    x = (point[0] * size[1] - inside.left) / inside.width
    y = (point[1] * size[0] - inside.top) / inside.height
    return min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)


def draw_uncovered(
    coverage: Tensor, shape: tuple[int, int], size: tuple[int, int], inside: Window | None
) -> Tensor:
    """Return where no reference gave colours, (B, 1, *size) in 0..1, of `ColorBranch.coverage` (B, R, h, w).

    `shape` is that of the picture, or of its window `inside`, at the working size; outside of the window the result is 1.
    """
    window = inside or Window(0, 0, *size)
    whole = (
        round(window.height * coverage.shape[2] * STRIDE / shape[0]),
        round(window.width * coverage.shape[3] * STRIDE / shape[1]),
    )
    uncovered = 1 - coverage.sum(1, keepdim=True)
    result = torch.ones(coverage.shape[0], 1, *size, device=coverage.device)
    crop(result, window, 2).copy_(
        resample_bicubic(uncovered, whole, (0, 0, window.height, window.width)).clamp_(0, 1)
    )
    return result


class SCSNet(nn.Module):
    """The network. `encode` runs once per picture, `decode` once per size or window."""

    def __init__(self, config: SCSNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SCSNetConfig()
        width = config.width
        self.initial = conv3x3(1, width)
        self.color_branch = ColorBranch(config)  # phi
        self.texture_encoder = TextureEncoder(width, config.depth)  # psi_E
        head = CPM if config.head == "cpm" else PixelShuffle  # psi_D
        self.head: CPM | PixelShuffle = head(2 * width, 4 * width)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, which the features have too."""
        return self.initial.weight.dtype

    def encode_reference(
        self,
        references: Sequence[Tensor],
        working_size: int | None = None,
        masks: Sequence[Tensor | None] = (),
    ) -> ReferenceFeatures:
        """Encode references, each normalised LAB (1 or B, 3, Hr, Wr) of any size.

        A reference with batch size 1 serves every source picture, one with B belongs to pictures 0..B-1. Each is
        reduced to about working_size² pixels (default: the config's). `masks`, one per reference, are (1 or B, 1, Hr, Wr),
        0.5 or more where the reference may be attended to, or None. Raises ValueError for
        no reference, wrong shapes, different batch sizes or a mask that marks nothing.
        """
        if not references:
            raise ValueError("expected at least one reference, got none")
        bound = self.config.working_size if working_size is None else working_size
        encoded: list[Tensor] = []
        positions: list[Tensor | None] = []
        marks: list[tuple[Tensor, Tensor]] = []
        for lab, mask in pair_masks(references, masks):
            if lab.ndim != 4 or lab.shape[1] != 3 or 0 in lab.shape:
                raise ValueError(f"expected a reference (B, 3, H, W), got shape {tuple(lab.shape)}")
            planes, marked = resize_masked(lab.float(), mask, bound)
            if marked is not None:
                marks.append((planes, marked))
                planes = spread_marked_colors(planes, marked)
            encoded.append(self.color_branch.encode_reference(pad_to_stride(planes)))
            positions.append(
                None if marked is None else F.max_pool2d(pad_to_stride(marked), STRIDE)
            )
        if all(mask is not None and not mask.flatten(1).any(1).all() for mask in positions):
            raise ValueError("expected a mask that marks at least one pixel, got an empty one")
        if len(batches := {e.shape[0] for e in encoded} - {1}) > 1:
            raise ValueError(f"references must have one batch size or 1, got {sorted(batches)}")
        keys_values = self.color_branch.cross_attention.compute_keys_values(encoded, positions)
        return ReferenceFeatures(keys_values, tuple(marks))

    def encode(
        self,
        luminance: Tensor,
        reference: ReferenceFeatures | None = None,
        *,
        working_size: int | None = None,
        inside: Window | None = None,
        tile: int = TILE,
        progress: Progress | None = None,
    ) -> Features:
        """Encode L (B, 1, Hs, Ws) of any size, optionally with references.

        The colour branch sees the picture reduced to about working_size² pixels (default: the config's, at which the
        weights were trained); a picture that fits is not reduced, as in the paper. With `inside`, see `find_margins`, it sees
        this window alone, and the rest of the result has no colours. The texture encoder sees the whole picture, `tile`
        pixels at a time. Raises ValueError for wrong shapes.
        """
        if luminance.ndim != 4 or luminance.shape[1] != 1 or 0 in luminance.shape:
            raise ValueError(f"expected luminance (B, 1, H, W), got shape {tuple(luminance.shape)}")
        batch = luminance.shape[0]
        if reference is not None and reference.batch not in (1, batch):
            raise ValueError(
                f"expected references for 1 or {batch} pictures, got {reference.batch}"
            )
        luminance = luminance.float()
        if inside is not None:
            inside = validate_window((luminance.shape[2], luminance.shape[3]), inside)
        inner = luminance if inside is None else crop(luminance, inside, 2)
        working = resize_to_working_size(
            inner, self.config.working_size if working_size is None else working_size
        )
        padded = pad_to_stride(working)
        initial = channels_last(self.initial(channels_last(padded.to(self.dtype))))
        # A reduced picture needs no padding: then the prior sees the picture before the reduction.
        source = self.color_branch.encode_source(initial, padded if working is inner else inner)
        color = self.color_branch(source, None if reference is None else reference.keys_values)
        color = color[..., : working.shape[2], : working.shape[3]]
        features = Features(luminance, color, source, None, reference, inside)
        bytes_kept = luminance.numel() * self.config.width * self.initial.weight.element_size()
        if bytes_kept <= KEPT_TEXTURE:
            texture = encode_texture(self.initial, self.texture_encoder, luminance, tile, progress)
            features = replace(features, texture=texture)
        return features

    def concatenate_features(self, features: Features, window: Window) -> Tensor:
        """Return cat(F_tex, F_color) (B, 128, height, width) of a window of the source."""
        if features.texture is None:
            texture = encode_texture_window(
                self.initial, self.texture_encoder, features.luminance, window
            )
        else:
            texture = crop(features.texture, window, 2)
        height, width = features.color.shape[2:]
        if (height, width) == features.size:
            return torch.cat([texture, crop(features.color, window, 2)], dim=1)
        device = features.color.device
        inside = features.inside or Window(0, 0, *features.size)  # beyond it the border is repeated
        start, stop = window.top - inside.top, window.bottom - inside.top
        rows = compute_centred_taps(height, inside.height, start, stop, device)
        start, stop = window.left - inside.left, window.right - inside.left
        columns = compute_centred_taps(width, inside.width, start, stop, device)
        color = resample_features(features.color, rows, columns)
        return torch.cat([texture, color], dim=1)

    def decode_tiles(
        self,
        features: Features,
        size: tuple[int, int],
        window: tuple[int, int, int, int] | None = None,
        *,
        tile: int = TILE,
        block: tuple[int, int] | None = None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[Window, Tensor]]:
        """Yield the result of `decode` block by block: (window of the output grid, LAB (B, 3, n, m)).

        `tile` is the side of a tile in source pixels; `block` the height and width in output pixels that CPM maps at a
        time (default: what the head prefers).
        """
        requested = validate_window(size, window)
        if isinstance(self.head, PixelShuffle):
            lab = self._shuffle_pixels(features, size, requested)
            yield requested, correct_colors(lab, features, size, requested)
            return
        source_height, source_width = features.size
        align, device = self.config.cpm_align, features.color.device
        if features.texture is not None and device.type == "cpu":
            tile = min(tile, TILE_KEPT)
        if block is None:
            magnification = max(size[0] / source_height, size[1] / source_width)
            block = self.head.block_size(features.color, magnification)
        # Output pixels whose source pixels fill about one tile; blocks divide it evenly.
        step = (
            max(1, int(tile * size[0] / source_height)),
            max(1, int(tile * size[1] / source_width)),
        )
        plan = [(outer, list(outer.blocks(*block))) for outer in requested.blocks(*step)]
        done, total = 0, sum(len(blocks) for _, blocks in plan)
        for outer, blocks in plan:
            rows = build_axis(source_height, size[0], outer.top, outer.bottom, align, device)
            columns = build_axis(source_width, size[1], outer.left, outer.right, align, device)
            top, bottom = rows.taps.span()
            left, right = columns.taps.span()
            # One more pixel on each side for the 3x3 convolution, within the picture.
            up, lead = max(0, top - 1), max(0, left - 1)
            down, trail = min(source_height, bottom + 1), min(source_width, right + 1)
            hidden = self.head.fold_first_layer(
                self.concatenate_features(features, Window(up, lead, down - up, trail - lead))
            )
            for place in blocks:
                part = (
                    rows.part(place.top - outer.top, place.bottom - outer.top),
                    columns.part(place.left - outer.left, place.right - outer.left),
                )
                lab = self._map_block(features, hidden, *part, (up, lead))
                yield place, correct_colors(lab, features, size, place)
                done += 1
                if progress is not None:
                    progress(done, total)

    def _map_block(
        self, features: Features, hidden: Tensor, rows: Axis, columns: Axis, start: tuple[int, int]
    ) -> Tensor:
        """Map one block to LAB (B, 3, n, m); the first pixel of `hidden` is the pixel `start` of the source."""
        assert isinstance(self.head, CPM)
        (top, bottom), (left, right) = rows.taps.span(), columns.taps.span()
        used = Window(top - start[0], left - start[1], bottom - top, right - left)
        part = crop(hidden, used, 1)
        near_rows = rows._replace(taps=rows.taps.shifted(top))
        near_columns = columns._replace(taps=columns.taps.shifted(left))
        lab = self.head.map(part, near_rows, near_columns).permute(0, 3, 1, 2)
        if self.config.luminance_skip:
            lab[:, :1] += resample(features.luminance, rows.taps, columns.taps)
        return lab

    def _shuffle_pixels(
        self, features: Features, size: tuple[int, int], requested: Window
    ) -> Tensor:
        height, width = features.size
        if size != (FACTOR * height, FACTOR * width):
            expected = f"{FACTOR * height} x {FACTOR * width}"
            raise ValueError(f"expected size {expected} with the pixel-shuffle head, got {size}")
        assert isinstance(self.head, PixelShuffle)
        lab = self.head(self.concatenate_features(features, Window(0, 0, height, width)))
        if self.config.luminance_skip:
            rows = compute_centred_taps(height, size[0], 0, size[0], lab.device)
            columns = compute_centred_taps(width, size[1], 0, size[1], lab.device)
            lab = lab + torch.cat(
                [resample(features.luminance, rows, columns), torch.zeros_like(lab[:, 1:])], dim=1
            )
        return lab[..., requested.top : requested.bottom, requested.left : requested.right]

    def decode(
        self,
        features: Features,
        size: tuple[int, int],
        window: tuple[int, int, int, int] | None = None,
        *,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return normalised LAB (B, 3, Ht, Wt), float32, at `size` = (Ht, Wt), or a window of that grid.

        `window` is (top, left, height, width) in output pixels; its cost does not depend on the rest of the grid.
        Raises ValueError for a window outside the grid.
        """
        requested = validate_window(size, window)
        needs_gradients = features.color.requires_grad or next(self.head.parameters()).requires_grad
        if torch.is_grad_enabled() and needs_gradients:
            # the backward pass needs all of it in memory
            at_once = (requested.height, requested.width)
            return join_blocks(
                self.decode_tiles(features, size, requested, block=at_once, progress=progress)
            )
        tiles = self.decode_tiles(features, size, requested, progress=progress)
        shape = (features.luminance.shape[0], 3, requested.height, requested.width)
        whole = torch.empty(shape, device=features.color.device)
        for block, lab in tiles:
            top, left = block.top - requested.top, block.left - requested.left
            whole[..., top : top + block.height, left : left + block.width] = lab
        return whole

    @torch.inference_mode()
    def attention(
        self, features: Features, points: Sequence[tuple[float, float]], level: int = 0
    ) -> tuple[Tensor, ...]:
        """Return the attention weights of points of the source over the references (Fig. 8), float32.

        `points` are (x, y) in 0..1 of the picture; `level` 0, 1, 2 is D1, D2, D4 of the pyramid. The result is one
        (B, P, h, w) per reference; the weights of a point sum to 1 over all references. Only these rows of CMat are
        computed. Raises ValueError for points outside the picture and for features without a reference.
        """
        if outside := [p for p in points if not (0 <= p[0] <= 1 and 0 <= p[1] <= 1)]:
            raise ValueError(f"expected points with x and y in 0..1, got {outside}")
        if not points:
            raise ValueError("expected at least one point, got none")
        shape = (features.color.shape[2], features.color.shape[3])
        if features.inside is not None:
            points = [locate_inside(point, features.size, features.inside) for point in points]
        keys_values = self._get_keys_values(features)
        return self.color_branch.attention(features.source, keys_values, points, shape, level)

    @torch.inference_mode()
    def valves(self, features: Features, level: int = 0) -> tuple[Tensor, Tensor]:
        """Return V1 and V2 of a level (Fig. 4), each (B, 1, h, w) in 0..1: the gates of F_s and of F_r->s.

        Raises ValueError for features without a reference.
        """
        return self.color_branch.valves(features.source, self._get_keys_values(features), level)

    @torch.inference_mode()
    def coverage(self, features: Features) -> tuple[Tensor, Tensor]:
        """Return where the colours did not come from a reference (B, 1, Hs, Ws), and each reference's part (B, R); float32, 0..1.

        See `ColorBranch.coverage`. A part is the mean over the picture without its margins; where V1 passes too, a perfect
        reference does not reach 1. Raises ValueError for features without a reference.
        """
        keys_values = self._get_keys_values(features)
        coverage = self.color_branch.coverage(features.source, keys_values)
        shape = (features.color.shape[2], features.color.shape[3])
        uncovered = draw_uncovered(coverage, shape, features.size, features.inside)
        return uncovered, coverage.mean((2, 3))

    def _get_keys_values(self, features: Features) -> tuple[KeysValues, ...]:
        if features.reference is None:
            raise ValueError("expected features encoded with a reference, got features without")
        return features.reference.keys_values
