"""SCSNet: the paper's values and parameter counts, agreement with the paper's formulas, sizes, tiles, number formats."""

from copy import deepcopy
from dataclasses import replace

import oracle
import pytest
import torch
from tiny_prior import TINY, add_prior

from scsnet import SCSNet, SCSNetConfig
from scsnet.cpm import CPM
from scsnet.resample import compute_working_shape


def test_paper_is_table_8_to_the_letter():
    paper = SCSNetConfig.paper()
    assert (paper.norm, paper.residual, paper.cosine_attention) == ("instance", False, False)
    assert (paper.attention_scale, paper.luminance_skip, paper.cpm_align) == (1.0, False, "paper")
    assert (paper.width, paper.depth, paper.head) == (64, 16, "cpm")
    assert paper.attention == "pyramid_valve"


def count(*modules):
    return sum(p.numel() for m in modules for p in m.parameters())


@pytest.mark.parametrize("config", [SCSNetConfig(), SCSNetConfig.paper()], ids=["ours", "paper"])
def test_parameter_counts_are_the_papers(config):
    with torch.device("meta"):
        net, on_rdn = SCSNet(replace(config, prior="efficientnet_lite2")), CPM(64, 256)
    branch = net.color_branch
    reference = (branch.reference_initial, branch.reference_encoder)
    assert config.prior == "none"
    assert count(branch.guidance.prior) == 6_464_866  # not the paper's
    assert count(branch.guidance.source, branch.guidance.reference) == 2 * (452 * 256 + 256)
    assert count(net) - count(branch.guidance) == 15_357_775
    assert count(net) - count(branch.guidance, *reference, branch.cross_attention) == 9_954_441
    assert count(on_rdn) == 346_371
    assert count(net.head) == 493_827
    assert count(branch.cross_attention) == 4_036_486
    assert count(net.initial, branch.source_encoder) == 1_365_696
    assert count(*reference) == 1_366_848
    assert count(branch.extractor.convs) == 1_770_240
    assert count(branch.decoder) == 1_106_496
    assert count(net.texture_encoder) == 1_181_696


@pytest.fixture(params=["plain", "prior"])
def net(request, tiny_net, monkeypatch):
    """The tiny network, and the same with a semantic prior."""
    monkeypatch.setattr("scsnet.prior.EFFICIENTNET_LITE2", TINY)
    return tiny_net if request.param == "plain" else add_prior(tiny_net)


def run(net, luminance, references, size, window=None):
    encoded = net.encode_reference(references) if references else None
    return net.decode(net.encode(luminance, encoded), size, window)


SMALL = {"width": 8, "depth": 2, "working_size": 64}
CONFIGS = {
    "ours": SCSNetConfig(**SMALL),
    "paper": replace(SCSNetConfig.paper(), **SMALL),
    "basic": SCSNetConfig(**SMALL, attention="basic"),
    "paper-align": SCSNetConfig(**SMALL, cpm_align="paper", residual=False),
    "ours, full width": SCSNetConfig(),
    "paper, full width": SCSNetConfig.paper(),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("references", [0, 1, 2])
def test_network_equals_the_formulas(config, references):
    torch.manual_seed(0)
    net = SCSNet(config).eval().requires_grad_(False)
    for block in net.texture_encoder.blocks:
        torch.nn.init.normal_(block.conv2.weight, std=0.1)
    luminance = torch.rand(2, 1, 12, 20) * 2 - 1
    labs = [torch.rand(1, 3, 16, 8 * (i + 1)) * 2 - 1 for i in range(references)]
    got = run(net, luminance, labs, (23, 51))
    wide = [lab.double().expand(2, -1, -1, -1) for lab in labs]
    expected = oracle.scsnet(net.double(), luminance.double(), wide, (23, 51))
    assert oracle.error(got, expected) < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (3, 2), (37, 45), (700, 3)])
@pytest.mark.parametrize("out", [(1, 1), (2, 31), (50, 40)])
def test_every_size_works(net, size, out):
    lab = run(net, torch.rand(1, 1, *size), [torch.rand(1, 3, *size)], out)
    assert lab.shape == (1, 3, *out)
    assert lab.dtype == torch.float32
    assert torch.isfinite(lab).all()


def test_tiles_and_windows_equal_the_whole(tiny_net, monkeypatch):
    luminance = torch.rand(1, 1, 61, 47)
    features = tiny_net.encode(luminance, working_size=24)
    tiled = tiny_net.encode(luminance, working_size=24, tile=16)
    assert torch.allclose(tiled.texture, features.texture, atol=1e-5)
    whole = tiny_net.decode(features, (150, 131))
    window = (33, 21, 64, 70)
    cut = whole[..., 33:97, 21:91]
    assert torch.allclose(tiny_net.decode(features, (150, 131), window), cut, atol=1e-5)
    # Texture features that are not kept, in tiles of 13 source pixels; CPM in blocks of 5 x 7.
    monkeypatch.setattr("scsnet.model.KEPT_TEXTURE", 0)
    monkeypatch.setattr("scsnet.cpm.head.BLOCK", (5, 7))
    lazy = tiny_net.encode(luminance, working_size=24)
    assert lazy.texture is None
    seen = torch.zeros(150, 131)
    for block, lab in tiny_net.decode_tiles(lazy, (150, 131), tile=13):
        area = slice(block.top, block.bottom), slice(block.left, block.right)
        seen[area] += 1
        assert (lab - whole[:, :, area[0], area[1]]).abs().max() < 1e-4
    assert torch.all(seen == 1)
    part = tiny_net.decode(lazy, (150, 131), window)
    assert (part - cut).abs().max() < 1e-4


def test_batch_equals_its_pictures_one_by_one(net):
    luminance, lab = torch.rand(3, 1, 20, 16), torch.rand(3, 3, 24, 20)
    together = run(net, luminance, [lab], (30, 30))
    for i in range(3):
        alone = run(net, luminance[i : i + 1], [lab[i : i + 1]], (30, 30))
        assert torch.allclose(together[i : i + 1], alone, atol=1e-4)


def test_working_size_bounds_the_colour_branch(tiny_net):
    luminance = torch.rand(1, 1, 24, 32)
    exact, larger, smaller = (
        tiny_net.encode(luminance, working_size=side).color for side in (32, 500, 16)
    )
    assert exact.shape[2:] == (24, 32)
    assert torch.equal(exact, larger)
    assert smaller.shape[2:] == (12, 20)
    for size in ((300, 500), (1, 100_000), (20_000, 2), (7, 5000), (40_000, 57)):
        height, width = compute_working_shape(*size, 128)
        assert height * width <= 1.125 * 128**2, size
        assert height % 4 == width % 4 == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(net, dtype):
    luminance, lab = torch.rand(1, 1, 32, 32) * 2 - 1, torch.rand(1, 3, 32, 32) * 2 - 1
    exact = run(net, luminance, [lab], (64, 64))
    got = run(net.to(dtype), luminance, [lab], (64, 64))
    features = net.encode(luminance)
    assert features.color.dtype == features.source.dtype == dtype
    assert features.luminance.dtype == got.dtype == torch.float32
    assert (got - exact).abs().mean() < 0.03 * exact.std()


@pytest.mark.parametrize("size", [(16, 20), (37, 41), (600, 20)])
@pytest.mark.parametrize("window", [None, (3, 2, 11, 9)])
def test_training_computes_the_same_and_reaches_every_parameter(tiny_net, size, window):
    """With gradients nothing is done in place or block by block."""
    luminance, lab = torch.rand(2, 1, 16, 20), torch.rand(2, 3, 16, 16)
    learning = deepcopy(tiny_net).requires_grad_(True)
    result = run(learning, luminance, [lab], size, window)
    assert torch.allclose(result, run(tiny_net, luminance, [lab], size, window), atol=1e-5)
    result.sum().backward()
    assert [name for name, p in learning.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("skip", [True, False])
def test_pixel_shuffle_head_enlarges_four_times_only(tiny_config, skip):
    net = SCSNet(replace(tiny_config, head="pixel_shuffle", luminance_skip=skip)).eval()
    features = net.encode(torch.rand(1, 1, 10, 7))
    whole = net.decode(features, (40, 28))
    assert whole.shape == (1, 3, 40, 28)
    assert torch.equal(net.decode(features, (40, 28), (3, 5, 9, 8)), whole[..., 3:12, 5:13])
    with pytest.raises(ValueError, match="40 x 28"):
        net.decode(features, (41, 28))
