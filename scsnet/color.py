"""sRGB <-> CIE LAB, and LAB <-> the network's normalised planes. Pure functions.

sRGB by IEC 61966-2-1 (piecewise curve), white point D65, 2 degree observer, as scikit-image to 1e-3. Computed in float32,
or in float64 for float64 input. All functions are differentiable; arguments of powers are kept away from 0, where the
slope is infinite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .config import SCSNetConfig

# Rows: X, Y, Z of the sRGB primaries, each row already divided by the white point (0.95047, 1, 1.08883).
_XYZ_FROM_RGB = torch.tensor(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ],
    dtype=torch.float64,
)
_WHITE = torch.tensor([0.95047, 1.0, 1.08883], dtype=torch.float64)
_TO_XYZ = _XYZ_FROM_RGB / _WHITE[:, None]
_TO_RGB = torch.linalg.inv(_TO_XYZ)
_EPSILON = 0.008856  # CIE: below this the cube root gives way to a straight line
_SLOPE = 7.787
_OFFSET = 16.0 / 116.0


def _mix(matrix: Tensor, planes: Tensor) -> Tensor:
    """Apply a 3x3 matrix to planes (..., 3, H, W)."""
    x, y, z = planes.unbind(-3)
    # As Python numbers: a tensor would be copied to the planes' device on every call.
    rows: list[list[float]] = matrix.tolist()
    return torch.stack([m[0] * x + m[1] * y + m[2] * z for m in rows], dim=-3)


def _as_float32(planes: Tensor, channels: tuple[int, ...]) -> Tensor:
    if planes.ndim < 3 or planes.shape[-3] not in channels:
        raise ValueError(
            f"expected planes (..., {channels}, H, W), got shape {tuple(planes.shape)}"
        )
    return planes if planes.dtype == torch.float64 else planes.float()


def srgb_to_linear(rgb: Tensor) -> Tensor:
    """Decode the sRGB curve; negative values (out of gamut) follow the straight part."""
    curve = ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(rgb > 0.04045, curve, rgb / 12.92)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Encode the sRGB curve; negative values (out of gamut) follow the straight part."""
    curve = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curve, linear * 12.92)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB (..., 3, H, W) in 0..1 to LAB (..., 3, H, W): L* in 0..100, a* and b* about -110..110."""
    xyz = _mix(_TO_XYZ, srgb_to_linear(_as_float32(rgb, (3,))))
    root = xyz.clamp_min(_EPSILON) ** (1 / 3)
    fx, fy, fz = torch.where(xyz > _EPSILON, root, _SLOPE * xyz + _OFFSET).unbind(-3)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=-3)


def lab_to_rgb(lab: Tensor, clip: bool = False) -> Tensor:
    """Convert LAB (..., 3, H, W) to sRGB (..., 3, H, W).

    Colours outside the sRGB gamut exceed 0..1 unless `clip` is set. Do not clip inside a loss: clipped values have no
    gradient.
    """
    lightness, a, b = _as_float32(lab, (3,)).unbind(-3)
    fy = (lightness + 16) / 116
    f = torch.stack([fy + a / 500, fy, fy - b / 200], dim=-3)
    threshold = _EPSILON ** (1 / 3)
    xyz = torch.where(f > threshold, f**3, (f - _OFFSET) / _SLOPE)
    rgb = linear_to_srgb(_mix(_TO_RGB, xyz))
    return rgb.clamp(0, 1) if clip else rgb


def rgb_to_lightness(rgb: Tensor) -> Tensor:
    """Convert sRGB (..., 3, H, W) or gray (..., 1, H, W) in 0..1 to L* (..., 1, H, W) in 0..100."""
    linear = srgb_to_linear(_as_float32(rgb, (1, 3)))
    if linear.shape[-3] == 3:
        red, green, blue = linear.unbind(-3)
        m: list[float] = _TO_XYZ[1].tolist()
        linear = (m[0] * red + m[1] * green + m[2] * blue).unsqueeze(-3)
    root = linear.clamp_min(_EPSILON) ** (1 / 3)
    return 116 * torch.where(linear > _EPSILON, root, _SLOPE * linear + _OFFSET) - 16


def normalize_lab(lab: Tensor, config: SCSNetConfig) -> Tensor:
    """Normalise LAB (..., 3, H, W), or L* alone (..., 1, H, W), to the network's planes, about -1..1."""
    planes = _as_float32(lab, (1, 3))
    lightness = (planes[..., :1, :, :] - config.lightness_centre) / config.lightness_scale
    return torch.cat([lightness, planes[..., 1:, :, :] / config.chroma_scale], dim=-3)


def denormalize_lab(planes: Tensor, config: SCSNetConfig) -> Tensor:
    """Invert `normalize_lab`."""
    planes = _as_float32(planes, (1, 3))
    lightness = planes[..., :1, :, :] * config.lightness_scale + config.lightness_centre
    return torch.cat([lightness, planes[..., 1:, :, :] * config.chroma_scale], dim=-3)


def rgb_to_gray(rgb: Tensor) -> Tensor:
    """Convert sRGB (B, 3, H, W) in 0..1 to the gray of the same L*, as three equal planes."""
    lab = rgb_to_lab(rgb)
    return lab_to_rgb(torch.cat([lab[:, :1], torch.zeros_like(lab[:, 1:])], 1), clip=True)
