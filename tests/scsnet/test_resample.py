"""Resampling against Pillow and PyTorch, whole and in windows."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.overrides import TorchFunctionMode

from scsnet import cpm
from scsnet import resample as resampling
from scsnet.resample import (
    compute_linear_taps,
    compute_pixel_centres,
    resample,
    resample_bicubic,
    resample_features,
)

SIZES = [(7, 7), (7, 28), (28, 7), (13, 37), (37, 13), (1, 5), (5, 1), (40, 11), (128, 512)]


@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
def test_bicubic_is_pillows(n_in, n_out):
    plane = np.random.default_rng(0).random((n_in, n_in), dtype=np.float32)
    expected = Image.fromarray(plane).resize((n_out, n_out), Image.Resampling.BICUBIC)
    got = resample_bicubic(torch.from_numpy(plane)[None, None], (n_out, n_out))[0, 0].numpy()
    assert np.abs(got - np.asarray(expected)).max() < 2e-5


@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
def test_linear_is_pytorchs(n_in, n_out):
    planes = torch.rand(2, 3, n_in, n_in)
    taps = compute_linear_taps(*compute_pixel_centres(n_in, n_out, 0, n_out), n_in)
    expected = F.interpolate(planes, (n_out, n_out), mode="bilinear")
    assert torch.allclose(resample(planes, taps, taps), expected, atol=1e-5)


@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
def test_features_are_resampled_as_pictures(n_in, n_out):
    planes = torch.rand(2, 5, n_in, 9)
    rows = compute_linear_taps(*compute_pixel_centres(n_in, n_out, n_out // 3, n_out), n_in)
    columns = compute_linear_taps(*compute_pixel_centres(9, 21, 4, 15), 9)
    got = resample_features(planes, rows, columns)
    assert torch.allclose(got, resample(planes, rows, columns), atol=1e-6)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_window_is_cut_from_the_whole():
    planes = torch.rand(1, 2, 31, 17)
    whole = resample_bicubic(planes, (77, 90))
    assert torch.equal(
        resample_bicubic(planes, (77, 90), (13, 40, 20, 33)), whole[..., 13:33, 40:73]
    )


def test_positions_are_exact_where_float32_is_not():
    """The fractional position keeps full precision at large coordinates."""
    whole, fraction = compute_pixel_centres(99_991, 100_000_007, 99_999_999, 100_000_007)
    from fractions import Fraction

    for i, (w, f) in enumerate(zip(whole.tolist(), fraction.tolist(), strict=True)):
        exact = Fraction(2 * (99_999_999 + i) + 1, 2 * 100_000_007) * 99_991 - Fraction(1, 2)
        assert w == exact.numerator // exact.denominator
        assert abs(f - float(exact - w)) < 1e-7


def test_matrix_says_the_same_as_the_taps():
    taps = compute_linear_taps(*compute_pixel_centres(9, 40, 5, 33), 9)
    planes = torch.rand(1, 1, 9, 9)
    dense = taps.matrix(9, torch.float32)
    assert torch.allclose(dense.sum(1), torch.ones(28))
    expected = dense @ planes[0, 0] @ dense.T
    assert torch.allclose(resample(planes, taps, taps)[0, 0], expected, atol=1e-6)


class NoDoubles(TorchFunctionMode):
    """Like MPS: no float64 on the device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            assert result.device.type != "meta", func
        return result


@pytest.mark.parametrize(
    "make",
    [
        lambda device: resampling.compute_cubic_taps(9, 23, 0, 23, device),
        lambda device: cpm.build_axis(9, 23, 2, 20, "centre", device).taps,
        lambda device: cpm.build_axis(9, 23, 2, 20, "paper", device).taps,
        lambda device: cpm.build_axis(9, 23, 2, 20, "paper", device),
    ],
)
def test_devices_without_float64(make, monkeypatch):
    monkeypatch.setattr(resampling, "WITHOUT_DOUBLES", {"meta"})
    with NoDoubles():
        made = make("meta")
    assert all(t.device.type == "meta" for t in made[:2] if isinstance(t, torch.Tensor))
    monkeypatch.setattr(resampling, "WITHOUT_DOUBLES", set())
    with NoDoubles(), pytest.raises(AssertionError):
        make("meta")
