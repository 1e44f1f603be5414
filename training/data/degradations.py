"""Degrade photos like scans of old prints: fading, blur, grain, noise, toning, JPEG, margins.

Degradations are applied to the low-resolution input only: the target stays clean, so the network learns to undo them.
Margins are part of the target too, in gray. Ranges are chosen by eye, for inputs of about 128 pixels.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

Array = np.ndarray  # float32 (H, W), 0..1


def mix_channels(rgb: Array, rng: np.random.Generator) -> Array:
    """Convert RGB (H, W, 3) to gray with random weights, as films and plates differ in their sensitivity to colours."""
    return rgb @ rng.dirichlet((3.0, 4.0, 2.0)).astype(np.float32)


def fade(gray: Array, rng: np.random.Generator) -> Array:
    """Fade a print: raise the black level, lower the white level and change the gamma."""
    black, white = rng.uniform(0, 0.18), rng.uniform(0.8, 1.0)
    return black + (white - black) * gray ** rng.uniform(0.75, 1.35)


def blur_gaussian(gray: Array, sigma: float) -> Array:
    """Blur with a Gaussian of `sigma` pixels, at most 1.5, cut off at 4 pixels; the border is replicated."""
    taps = np.exp(-0.5 * (np.arange(-4, 5, dtype=np.float32) / np.float32(sigma)) ** 2)
    for axis in (0, 1):
        width = [(4, 4) if axis == a else (0, 0) for a in (0, 1)]
        padded, length = np.pad(gray, width, mode="edge"), gray.shape[axis]
        parts = [padded.take(range(k, k + length), axis) * tap for k, tap in enumerate(taps)]
        gray = np.sum(parts, axis=0) / taps.sum()
    return gray


def defocus(gray: Array, rng: np.random.Generator) -> Array:
    """Blur like a lens out of focus, with a Gaussian of 0.3 to 1 pixel."""
    return blur_gaussian(gray, rng.uniform(0.3, 1.0))


def add_grain(gray: Array, rng: np.random.Generator) -> Array:
    """Add film grain: noise with a correlation of 0.6 pixels, strongest in the middle tones."""
    clumps = blur_gaussian(rng.standard_normal(gray.shape).astype(np.float32), 0.6)
    return gray + rng.uniform(0.02, 0.08) * clumps * 4 * gray * (1 - gray)


def add_noise(gray: Array, rng: np.random.Generator) -> Array:
    """Add white noise, as of a scanner, with a deviation of 0.005 to 0.03."""
    return gray + rng.uniform(0.005, 0.03) * rng.standard_normal(gray.shape).astype(np.float32)


def tone(gray: Array, rng: np.random.Generator) -> np.ndarray:
    """Tone gray like sepia, to RGB (H, W, 3); L* changes with it."""
    strength = rng.uniform(0.2, 1.0)
    sepia = np.stack([gray**0.8, gray**1.0, gray**1.35], axis=-1)
    return gray[..., None] * (1 - strength) + sepia * strength


def compress(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compress uint8 (H, W, 3) by JPEG of quality 30 to 90."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=int(rng.integers(30, 91)))
    return np.asarray(Image.open(buffer).convert("RGB"))


def degrade(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Degrade a photo, uint8 (H, W, 3), by a random choice of effects, like a scan of an old print of it."""
    gray = mix_channels(rgb.astype(np.float32) / 255, rng)
    for effect, share in ((defocus, 0.4), (fade, 0.7), (add_grain, 0.5), (add_noise, 0.5)):
        if rng.random() < share:
            gray = np.clip(effect(gray, rng), 0, 1)
    toned = tone(gray, rng) if rng.random() < 0.3 else np.repeat(gray[..., None], 3, axis=2)
    picture = (toned * 255).round().clip(0, 255).astype(np.uint8)
    return compress(picture, rng) if rng.random() < 0.4 else picture


def _draw_margin_level(rng: np.random.Generator) -> float:
    """Draw the gray level of a margin in 0..255: near white, near black, gray, or as of paper."""
    ranges = ((235, 255), (0, 25), (40, 220), (180, 240))
    return rng.uniform(*ranges[rng.choice(4, p=(0.35, 0.25, 0.15, 0.25))])


def add_margins(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint gray margins of 1 pixel to 15 % over one to four sides of a picture, as prints and slides have them.

    Returns the picture, uint8 (H, W, 3), and a mask (H, W) that is true where the photo is left. Edges are straight,
    slightly rotated or deckled, margins white, black, gray or as dark as paper, half of them with noise. One picture in
    twelve becomes a blank sheet of any gray.
    """
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    distances = (y, height - 1 - y, x, width - 1 - x)  # from each side
    along = (x, x, y, y)
    slope = rng.uniform(-0.03, 0.03) if rng.random() < 0.3 else 0.0
    deckled = rng.random() < 0.2
    whole = rng.random() < 0.6  # the same margin on every side
    sides = range(4) if whole else rng.permutation(4)[: rng.integers(1, 5)]
    low, high = np.log(1.0), np.log(0.15 * min(height, width) + 1)
    shared = np.exp(rng.uniform(low, high))
    inside = np.ones((height, width), bool)
    for side in sides:
        amount = shared if whole else np.exp(rng.uniform(low, high))
        length = width if side < 2 else height
        edge = amount + (1 if side in (0, 3) else -1) * slope * (along[side] - length / 2)
        if deckled:
            knots = rng.uniform(-0.3, 0.3, length // 3 + 2) * min(amount, 6)
            wave = np.interp(np.arange(length) / 3, np.arange(len(knots)), knots)
            edge = edge + wave[along[side].astype(int)]
        inside &= distances[side] >= np.round(edge)
    blank = rng.random() < 1 / 12
    inside &= not blank
    paint = np.full(picture.shape, rng.uniform(0, 255) if blank else _draw_margin_level(rng))
    if rng.random() < 0.5:
        paint = paint + rng.normal(0, rng.uniform(1, 8), (height, width, 1))
    paint = paint.round().clip(0, 255).astype(np.uint8)
    return np.where(inside[..., None], picture, paint), inside
