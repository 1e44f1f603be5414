"""What time and scanners do to a photo, so that weights meet it in training and not first in use.

Applied to the low-resolution input only: the truth stays clean, so the network learns to undo it.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

Array = np.ndarray  # float32 (H, W), 0..1


def film(rgb: Array, rng: np.random.Generator) -> Array:
    """RGB (H, W, 3) -> gray as a film saw it: old plates hardly see red."""
    weights = rng.dirichlet((3.0, 4.0, 2.0)).astype(np.float32)
    return rgb @ weights


def fade(gray: Array, rng: np.random.Generator) -> Array:
    """Blacks turn gray, whites turn dull, the middle shifts."""
    black, white = rng.uniform(0, 0.18), rng.uniform(0.8, 1.0)
    return black + (white - black) * gray ** rng.uniform(0.75, 1.35)


def gaussian(gray: Array, sigma: float) -> Array:
    """Blur of a small sigma, at most 1.5 pixels; the border repeats."""
    taps = np.exp(-0.5 * (np.arange(-4, 5, dtype=np.float32) / np.float32(sigma)) ** 2)
    for axis in (0, 1):
        width = [(4, 4) if axis == a else (0, 0) for a in (0, 1)]
        padded = np.pad(gray, width, mode="edge")
        parts = [
            padded.take(range(k, k + gray.shape[axis]), axis) * tap for k, tap in enumerate(taps)
        ]
        gray = np.sum(parts, axis=0) / taps.sum()
    return gray


def blur(gray: Array, rng: np.random.Generator) -> Array:
    """Out of focus, in pixels of the input."""
    return gaussian(gray, rng.uniform(0.3, 1.0))


def grain(gray: Array, rng: np.random.Generator) -> Array:
    """Film or paper grain: clumps, strongest in the middle tones."""
    clumps = gaussian(rng.standard_normal(gray.shape).astype(np.float32), 0.6)
    return gray + rng.uniform(0.02, 0.08) * clumps * 4 * gray * (1 - gray)


def noise(gray: Array, rng: np.random.Generator) -> Array:
    """Of the scanner: every pixel for itself."""
    return gray + rng.uniform(0.005, 0.03) * rng.standard_normal(gray.shape).astype(np.float32)


def tone(gray: Array, rng: np.random.Generator) -> np.ndarray:
    """Gray -> sepia or another toning (H, W, 3); its L* is no longer that of the gray."""
    strength = rng.uniform(0.2, 1.0)
    sepia = np.stack([gray**0.8, gray**1.0, gray**1.35], axis=-1)
    return gray[..., None] * (1 - strength) + sepia * strength


def jpeg(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 (H, W, 3) through JPEG of quality 30 to 90."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=int(rng.integers(30, 91)))
    return np.asarray(Image.open(buffer).convert("RGB"))


def degrade(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 (H, W, 3) -> a scan of an old print of it, the same shape. A random choice of effects."""
    gray = film(rgb.astype(np.float32) / 255, rng)
    for effect, share in ((blur, 0.4), (fade, 0.7), (grain, 0.5), (noise, 0.5)):
        if rng.random() < share:
            gray = np.clip(effect(gray, rng), 0, 1)
    toned = tone(gray, rng) if rng.random() < 0.3 else np.repeat(gray[..., None], 3, axis=2)
    picture = (toned * 255).round().clip(0, 255).astype(np.uint8)
    return jpeg(picture, rng) if rng.random() < 0.4 else picture
