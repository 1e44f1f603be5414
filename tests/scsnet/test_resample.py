"""Resampling against Pillow and PyTorch, whole and in windows."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.overrides import TorchFunctionMode

from scsnet.cpm import build_axis
from scsnet.resample import (
    compute_cubic_taps,
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
    planes, start = torch.rand(2, 5, n_in, 9), n_out // 3
    expected = F.interpolate(planes, (n_out, 21), mode="bilinear")[:, :, start:, 4:15]
    rows, columns = (
        compute_linear_taps(*compute_pixel_centres(*span), span[0])
        for span in ((n_in, n_out, start, n_out), (9, 21, 4, 15))
    )
    assert torch.allclose(resample(planes, rows, columns), expected, atol=1e-5)
    features = resample_features(planes, rows, columns)
    assert torch.allclose(features, expected, atol=1e-5)
    assert features.is_contiguous(memory_format=torch.channels_last)
    vertical, horizontal = (t.matrix(n, torch.float32) for t, n in ((rows, n_in), (columns, 9)))
    assert torch.allclose(vertical @ planes @ horizontal.T, expected, atol=1e-5)


class NoDoubles(TorchFunctionMode):
    """Like MPS: no float64 on the device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            assert result.device.type != "meta", func
        return result


def test_devices_without_float64_get_none(monkeypatch):
    monkeypatch.setattr("scsnet.resample.WITHOUT_DOUBLES", {"meta"})
    with NoDoubles():
        cubic = compute_cubic_taps(9, 23, 0, 23, "meta")
        axes = [build_axis(9, 23, 2, 20, align, "meta") for align in ("centre", "paper")]
    assert all(taps.weight.is_meta for taps in (cubic, *(axis.taps for axis in axes)))
