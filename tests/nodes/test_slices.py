"""nodes/slices.py: big operations in slices give the same result, and leave no long time without a question."""

import asyncio
import sys

import pytest
import torch
import torch.nn.functional as F
from host_doubles import Host, pack
from torch.utils._python_dispatch import TorchDispatchMode

from scsnet import onednn


@pytest.fixture
def host(tmp_path):
    return Host(str(tmp_path))


@pytest.fixture
def nodes(host):
    with pack(host) as module:
        asyncio.run(module.comfy_entrypoint())
        yield sys.modules[f"{module.__name__}.nodes"]


@pytest.fixture
def small(nodes, monkeypatch):
    """Slices so small that tiny tensors are cut; counts the questions."""
    monkeypatch.setattr(nodes.slices, "LIMIT", 20_000)
    monkeypatch.setattr(nodes.slices, "NUMBERS", 500)
    asked = []
    mode = nodes.slices.Interruptible(lambda: asked.append(1))
    mode.asked = asked
    return mode


LAYOUTS = [torch.contiguous_format, torch.channels_last]


def random(*shape, layout=torch.contiguous_format):
    torch.manual_seed(0)
    return torch.randn(shape).contiguous(memory_format=layout)


def compare(mode, work, questions=3):
    """The same numbers in the same layout, with and without the mode."""
    plain = work()
    with mode:
        sliced = work()
    assert torch.allclose(sliced, plain, atol=1e-5)
    assert sliced.stride() == plain.stride()
    assert len(mode.asked) >= questions, "nothing was cut"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [((19, 23), 3, 1, 1), ((19, 23), 3, 2, 1), ((20, 8), 3, 1, 0), ((17, 9), 1, 1, 0), ((3, 300), 3, 1, 1)],
)  # fmt: skip
def test_convolutions(small, layout, size, kernel, stride, padding):
    conv = torch.nn.Conv2d(6, 10, kernel, stride, padding).to(memory_format=layout)
    x = random(2, 6, *size, layout=layout)
    compare(small, lambda: conv(x).detach(), questions=2)


def test_a_convolution_follows_the_layout_of_its_weights(small):
    weight = random(10, 6, 3, 3, layout=torch.channels_last)
    x = random(1, 6, 19, 23)
    compare(small, lambda: F.conv2d(x, weight, padding=1))


fused = pytest.mark.skipif(
    torch.float32 not in onednn.FORMATS, reason="no fused convolutions on this machine"
)


@fused
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("slope", [0, 0.2])
def test_convolutions_with_a_rectifier(small, stride, slope):
    conv = torch.nn.Conv2d(6, 10, 3, stride, 1).requires_grad_(False)
    x = random(2, 6, 19, 23, layout=torch.channels_last)
    compare(small, lambda: onednn.convolve(x, conv, slope))


@fused
def test_convolutions_that_are_added(small):
    conv = torch.nn.Conv2d(6, 6, 3, 1, 1).requires_grad_(False)
    x = random(2, 6, 19, 23, layout=torch.channels_last)

    def work():
        total = torch.ones_like(x)
        onednn.convolve_add_to(total, conv, x)
        return total

    compare(small, work)


def test_attention(small):
    q, k, v = random(1, 2, 70, 8), random(1, 2, 50, 8), random(1, 2, 50, 8)
    compare(small, lambda: F.scaled_dot_product_attention(q, k, v, scale=3.0))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("height", [1, 2, 13])
def test_enlargement(small, layout, factor, height):
    x = random(1, 8, height, 70, layout=layout)
    compare(
        small, lambda: F.interpolate(x, scale_factor=factor, mode="bilinear"), questions=height + 1
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "work",
    [F.relu, lambda x: F.leaky_relu(x, 0.2), lambda x: x.nan_to_num(0.0, 1.0, 0.0), lambda x: x.clamp(0, 1)],
    ids=["relu", "leaky_relu", "nan_to_num", "clamp"],
)  # fmt: skip
def test_number_by_number(small, layout, work):
    x = random(2, 8, 9, 11, layout=layout)
    compare(small, lambda: work(x))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("into", LAYOUTS)
def test_copies(small, layout, into):
    x = random(2, 8, 9, 11, layout=layout)
    compare(small, lambda: x.contiguous(memory_format=into), questions=1 if into == layout else 3)
    y = random(2, 3, 9, 11, layout=layout)
    compare(small, lambda: torch.cat([x, y], dim=1))
    compare(small, lambda: torch.cat([x, x[:1]], dim=0), questions=1)


class Longest(TorchDispatchMode):
    """The biggest operation: multiplications of one that multiplies matrices, numbers made by any other."""

    def __init__(self):
        super().__init__()
        self.multiplications = self.numbers = 0
        self.which = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = result[0] if isinstance(result, tuple) else result
        name = func.overloadpacket.__name__
        if "conv" in name:
            weight = args[2] if name.endswith("_") else args[1]  # in place: the sum comes first
            self.multiplications = max(self.multiplications, made.numel() * weight[0].numel())
        elif name in ("mm", "bmm", "addmm"):
            self.multiplications = max(
                self.multiplications, made.numel() * args[-2 if name != "addmm" else 1].shape[-1]
            )
        elif "scaled_dot_product" in name:
            q, k, v = args[:3]
            self.multiplications = max(
                self.multiplications, q[..., 0].numel() * k.shape[-2] * (k.shape[-1] + v.shape[-1])
            )
        elif "empty" not in name and isinstance(made, torch.Tensor) and not _is_view(made, args):
            if made.numel() > 100_000:
                self.which[name] = tuple(made.shape)
            self.numbers = max(self.numbers, made.numel())
        return result


def _is_view(made, args):
    inputs = [a for a in args if isinstance(a, torch.Tensor)]
    return any(made.untyped_storage().data_ptr() == a.untyped_storage().data_ptr() for a in inputs)


def test_no_operation_is_long(nodes, monkeypatch):
    """Everything scaled down by about a thousand: pictures, network, tiles, limits. Holds on a busy machine too."""
    scsnet = sys.modules[nodes.__name__.replace(".nodes", ".scsnet")]
    limit, numbers = 4_000_000, 40_000
    monkeypatch.setattr(nodes.slices, "LIMIT", limit)
    monkeypatch.setattr(nodes.slices, "NUMBERS", numbers)
    for name in ("TILE", "CPU_TILE"):
        monkeypatch.setattr(nodes.host, name, 32)
    monkeypatch.setattr(nodes.batching, "BAND", 4096)
    monkeypatch.setattr(sys.modules[f"{scsnet.__name__}.model"], "BLOCK", (8, 32))
    monkeypatch.setattr(sys.modules[f"{scsnet.__name__}.pipeline"], "_BAND", 4096)
    net = scsnet.SCSNet(scsnet.SCSNetConfig(width=16, depth=2)).eval().requires_grad_(False)
    model = nodes.types.Model(nodes.host.patched(net), "test")
    image, reference = torch.rand(1, 192, 160, 4), torch.rand(2, 150, 200, 3)
    with torch.inference_mode(), Longest() as longest:
        options = {"working_size": 192}
        lab = nodes.SCSColorizeReference.execute(model, image, reference, **options).args[0]
        nodes.SCSContinuousUpscale.execute(lab, scale=2.3)
        nodes.SCSContinuousUpscale.execute(lab, scale=0.3)
    assert longest.multiplications <= 1.5 * limit
    # The values of all references are laid end to end in one go: 2 x 1900 positions x 64 channels.
    assert longest.numbers <= 7 * numbers, longest.which
