"""What only a GPU can show: results against float64 there, and its memory."""

import oracle
import pytest
import torch
from tiny_prior import TINY, add_prior

from scsnet import SCSNet, SCSNetConfig, encode_picture
from scsnet.cpm import CPM, dispatch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch):
    """Takes the kernel and switches TF32 off, not by monkeypatch: these attributes are properties."""
    monkeypatch.setattr(dispatch, "_enabled", True)
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = False
    yield
    products.allow_tf32, convolutions.allow_tf32 = before


@pytest.fixture
def net():
    """The network at a quarter of its width, which the kernel supports and float64 computes quickly."""
    torch.manual_seed(0)
    net = SCSNet(SCSNetConfig(width=16, depth=2, working_size=32)).requires_grad_(False).eval()
    for block in net.texture_encoder.blocks:
        torch.nn.init.normal_(block.conv2.weight, std=0.1)
    return net.cuda()


def photos(count=2, side=32):
    return torch.rand(count, 1, side, side, device="cuda")


@pytest.fixture
def needs_kernel():
    """Skips where there is no Triton kernel."""
    head = CPM(16, 32).to("cuda", torch.bfloat16).requires_grad_(False)
    if dispatch.choose_plan(head.parameters_of_map, head.fuse.weight) is None:
        pytest.skip(f"no Triton kernel on {torch.cuda.get_device_name()}")


@pytest.mark.parametrize("referential", [False, True])
@pytest.mark.parametrize("size", [(128, 128), (50, 71)])
def test_float32_equals_float64(net, referential, size):
    luminance = photos() * 2 - 1
    lab = [torch.rand(1, 3, 32, 32, device="cuda") * 2 - 1] if referential else []
    got = net.decode(net.encode(luminance, net.encode_reference(lab) if lab else None), size)
    net.double()
    expected = oracle.scsnet(net, luminance.double(), [r.double() for r in lab], size)
    assert oracle.error(got, expected) < 1e-4


def test_prior_masks_and_margins_equal_those_on_the_cpu(tiny_net, monkeypatch):
    monkeypatch.setattr("scsnet.prior.EFFICIENTNET_LITE2", TINY)
    net = add_prior(tiny_net)
    rgb, reference = torch.ones(1, 1, 48, 56), torch.rand(1, 3, 40, 40)
    rgb[..., 4:-4, 4:-4] = torch.rand(40, 48)
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 5:20, 7:9] = 1
    expected = encode_picture(net, rgb, [reference], reference_masks=[mask])
    net.cuda()
    got = encode_picture(net, rgb.cuda(), [reference.cuda()], reference_masks=[mask.cuda()])
    assert got.inside == expected.inside == (4, 4, 40, 48)
    assert oracle.error(got.color.cpu(), expected.color) < 1e-3


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3), (torch.float32, 1e-5)]
)
@pytest.mark.parametrize("align", ["centre", "paper"])
@pytest.mark.parametrize("channels", [32, 256])
def test_kernel_equals_float64(needs_kernel, dtype, tolerance, align, channels):
    from interpreted_cpm import check

    from scsnet.cpm.triton_kernel import Plan, list_plans

    candidates = list_plans(torch.cuda.get_device_capability())
    for plan in [Plan(4, 8, 16, 8, 1)] if dtype == torch.float32 else candidates:
        check(dtype, tolerance, align, (9, 12), (50, 41), plan, channels, "cuda")


def test_decode_takes_the_kernel_and_stays_close_to_float32(net, needs_kernel):
    luminance = photos() * 2 - 1
    expected = net.decode(net.encode(luminance), (128, 128))
    net.bfloat16()
    got = net.decode(net.encode(luminance), (128, 128))
    assert (got - expected).abs().mean() / expected.abs().max() < 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_memory_does_not_grow_with_the_output(net, dtype):
    net.to(dtype)
    features = net.encode(photos(1, 128))
    net.decode(features, (256, 256))  # libraries take their memory
    beyond = []
    for side in (1024, 4096):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        whole = net.decode(features, (side, side))
        beyond.append(torch.cuda.max_memory_allocated() - before - whole.nbytes)
        del whole
    assert beyond[1] <= beyond[0] + 32 * 2**20
    assert beyond[1] < 128 * 2**20
