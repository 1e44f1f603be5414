"""oneDNN's operators are private to PyTorch: where they differ from what is known, PyTorch's own are used."""

import pytest
import torch
from torch import nn

from scsnet import SCSNet, SCSNetConfig, onednn

needs_operators = pytest.mark.skipif(
    not onednn.FORMATS, reason="this PyTorch or processor has none of oneDNN's operators"
)


@pytest.fixture(autouse=True)
def asked_anew():
    onednn._works.cache_clear()
    yield
    onednn._works.cache_clear()


def _decoded(net):
    with torch.inference_mode():
        return net.decode(net.encode(torch.linspace(-1, 1, 12 * 16).view(1, 1, 12, 16)), (30, 41))


@needs_operators
@pytest.mark.parametrize(
    "error", [TypeError("unexpected arguments"), RuntimeError("no such schema"), None]
)
def test_operators_of_another_release_are_left_alone(error, monkeypatch):
    """Other arguments, or the same with another meaning."""
    torch.manual_seed(0)
    net = SCSNet(SCSNetConfig(width=16, depth=1)).eval()
    expected = _decoded(net)

    def changed(left, right):
        if error is not None:
            raise error
        return left @ right  # without the ReLU

    monkeypatch.setattr(onednn, "product_relu", changed)
    onednn._works.cache_clear()
    layer = nn.Linear(16, 16).requires_grad_(False)
    assert not onednn.usable(torch.zeros(2, 16), layer)
    assert torch.allclose(_decoded(net), expected, atol=1e-4)


@needs_operators
def test_they_work_here():
    assert onednn._works()
