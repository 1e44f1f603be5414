"""Convert embedded colour profiles to sRGB through LittleCMS, keeping more than 8 bits where a picture is gray."""

from __future__ import annotations

import functools
import io
import struct

import numpy as np
from PIL import Image, ImageCms

from .exif import srgb_profile

# What Pillow raises for a profile that is broken, or that is of another kind than the picture.
PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def needs_conversion(icc: bytes) -> bool:
    """Return False for profiles named sRGB, whose conversion would only add rounding; PROFILE_ERRORS if broken."""
    if icc == srgb_profile():
        return False
    return not ImageCms.getProfileDescription(_opened(icc)).startswith("sRGB")


@functools.cache
def adobe_rgb_profile() -> bytes:
    """Return a profile of Adobe RGB (1998): its primaries, adapted to D50, and its gamma of 563 / 256."""
    primaries = {
        b"rXYZ": (0.60974, 0.31111, 0.01947),
        b"gXYZ": (0.20528, 0.62567, 0.06087),
        b"bXYZ": (0.14919, 0.06322, 0.74457),
        b"wtpt": (0.9642, 1.0, 0.8249),
    }
    curve = struct.pack(">4s4xIH2x", b"curv", 1, 563)
    name = b"Adobe RGB (1998)\0"
    texts = {
        b"desc": struct.pack(">4s4xI", b"desc", len(name)) + name + bytes(79),
        b"cprt": b"text" + bytes(4) + b"none\0",
    }
    tags = {
        name: b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in xyz))
        for name, xyz in primaries.items()
    } | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve) | texts  # fmt: skip
    table, data = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        table += struct.pack(">4s2I", tag, 132 + 12 * len(tags) + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    white = struct.pack(">3i", *(round(v * 65536) for v in primaries[b"wtpt"]))
    header = struct.pack(
        ">I4sI4s4s4s12s4s28x12s48x", 132 + 12 * len(tags) + len(data), bytes(4), 0x02200000,
        b"mntr", b"RGB ", b"XYZ ", bytes(12), b"acsp", white,
    )  # fmt: skip
    return header + table + data


def to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """Convert an RGB or CMYK picture with this profile to sRGB, mode RGB."""
    return _apply(image, _opened(icc))


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """Convert a LAB picture (8 bit, D50, as TIFF stores it) to sRGB, mode RGB."""
    return _apply(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))


def gray_curve(icc: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return knots (x, y), each 0..1, of the curve from gray under this profile to sRGB gray, for np.interp.

    LittleCMS gives Pillow 8 bits only, but where its answer steps from n to n + 1 the exact value is n + ½. A ramp of
    65,536 grays finds these places, so a 16-bit scan keeps its precision. Profiles of colour devices take no 16-bit
    gray in Pillow; their curve is read at 256 places.
    """
    profile = _opened(icc)
    if profile.profile.xcolor_space.strip() != "GRAY":
        ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        y = np.asarray(_apply(ramp.convert("RGB"), profile, exact=True))[0, :, 1] / 255
        return np.linspace(0, 1, 256), y
    ramp = Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256))
    levels = np.asarray(_apply(ramp, profile, exact=True))[..., 1].reshape(-1).astype(np.float64)
    (steps,) = np.nonzero(np.diff(levels))
    x = np.concatenate([[0.0], (steps + 0.5) / 65535, [1.0]])
    y = np.concatenate([levels[:1], (levels[steps] + levels[steps + 1]) / 2, levels[-1:]]) / 255
    return x, y


def _opened(icc: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(icc))


def _apply(
    image: Image.Image, profile: ImageCms.ImageCmsProfile, *, exact: bool = False
) -> Image.Image:
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if exact:
        flags |= ImageCms.Flags.NOOPTIMIZE  # no table of a few dozen values in place of the curve
    transform = ImageCms.buildTransform(
        profile,
        _opened(srgb_profile()),
        image.mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=flags,
    )
    result = ImageCms.applyTransform(image, transform)
    assert result is not None  # only inPlace=True returns nothing
    return result
