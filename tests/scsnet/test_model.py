"""SCSNet: parameter counts, agreement with the oracle, sizes, tiles, number formats."""

from dataclasses import replace

import oracle
import pytest
import torch

from scsnet import SCSNet, SCSNetConfig
from scsnet.cpm import CPM
from scsnet.resample import compute_working_shape
from scsnet.tiling import Window


def count(*modules):
    return sum(p.numel() for m in modules for p in m.parameters())


@pytest.mark.parametrize("config", [SCSNetConfig(), SCSNetConfig.paper()], ids=["ours", "paper"])
def test_parameter_counts_are_the_papers(config):
    with torch.device("meta"):
        net, on_rdn = SCSNet(config), CPM(64, 256)
    branch = net.color_branch
    referential = (
        branch.reference_initial,
        branch.reference_encoder,
        branch.cross_attention,
    )
    assert count(on_rdn) == 346_371
    assert count(net.head) == 493_827
    assert count(branch.cross_attention) == 4_036_486
    assert count(net) == 15_357_775
    assert count(net) - count(*referential) == 9_954_441
    assert count(net.initial, branch.source_encoder) == 1_365_696
    assert count(branch.reference_initial, branch.reference_encoder) == 1_366_848
    assert count(branch.extractor.convs) == 1_770_240
    assert count(branch.decoder) == 1_106_496
    assert count(net.texture_encoder) == 1_181_696


def make(config, seed=0):
    torch.manual_seed(seed)
    net = SCSNet(config).eval().requires_grad_(False)
    for block in net.texture_encoder.blocks:
        torch.nn.init.normal_(block.conv2.weight, std=0.1)
    return net


OPTIONS = {
    "ours": {},
    "paper": SCSNetConfig.paper().to_dict(),
    "basic": {"attention": "basic"},
    "paper-align": {"cpm_align": "paper", "residual": False},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("references", [0, 1, 2])
def test_whole_network_equals_the_formulas(option, references):
    config = SCSNetConfig(**OPTIONS[option] | {"width": 8, "depth": 2, "working_size": 64})
    net = make(config)
    luminance = torch.rand(2, 1, 12, 20) * 2 - 1
    labs = [torch.rand(1, 3, 16, 8 * (i + 1)) * 2 - 1 for i in range(references)]
    memory = net.encode_reference(labs) if labs else None
    got = net.decode(net.encode(luminance, memory), (23, 51))
    double = make(config).double()
    wide = [lab.double().expand(2, -1, -1, -1) for lab in labs]
    expected = oracle.scsnet(double, luminance.double(), wide, (23, 51))
    assert (got - expected).abs().max() / expected.abs().max() < 1e-5


@pytest.mark.parametrize("option", ["ours", "paper"])
def test_full_width_equals_the_formulas(option):
    config = SCSNetConfig() if option == "ours" else SCSNetConfig.paper()
    net = make(config)
    luminance, lab = torch.rand(1, 1, 32, 32) * 2 - 1, torch.rand(1, 3, 32, 32) * 2 - 1
    got = net.decode(net.encode(luminance, net.encode_reference([lab])), (75, 75), (30, 20, 6, 9))
    expected = oracle.scsnet(
        net.double(), luminance.double(), [lab.double()], (75, 75), range(30, 36), range(20, 29)
    )
    assert (got - expected).abs().max() / expected.abs().max() < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (5, 5), (37, 45), (64, 4)])
@pytest.mark.parametrize("out", [(1, 1), (2, 31), (50, 40)])
def test_every_size_works(tiny_net, size, out):
    reference = tiny_net.encode_reference([torch.rand(1, 3, *size)])
    features = tiny_net.encode(torch.rand(1, 1, *size), reference)
    lab = tiny_net.decode(features, out)
    assert lab.shape == (1, 3, *out)
    assert lab.dtype == torch.float32
    assert torch.isfinite(lab).all()


def test_tiles_and_windows_equal_the_whole(tiny_net, monkeypatch):
    import scsnet.cpm.head as head
    import scsnet.model as module

    luminance = torch.rand(1, 1, 61, 47)
    features = tiny_net.encode(luminance, working_size=24)
    whole = tiny_net.decode(features, (150, 131))
    window = (33, 21, 64, 70)
    cut = whole[..., 33:97, 21:91]
    assert torch.allclose(tiny_net.decode(features, (150, 131), window), cut, atol=1e-5)
    # psi_E made again in tiles of 13 source pixels, CPM in blocks of 5 x 7
    monkeypatch.setattr(module, "KEPT_TEXTURE", 0)
    monkeypatch.setattr(head, "BLOCK", (5, 7))
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


def test_texture_is_kept_in_tiles_as_well(tiny_net):
    luminance = torch.rand(2, 1, 50, 41)
    whole = tiny_net.encode(luminance).texture
    tiled = tiny_net.encode(luminance, tile=16).texture
    assert torch.allclose(whole, tiled, atol=1e-5)


def test_batch_equals_one_by_one(tiny_net):
    luminance, lab = torch.rand(3, 1, 20, 16), torch.rand(3, 3, 24, 20)
    together = tiny_net.decode(
        tiny_net.encode(luminance, tiny_net.encode_reference([lab])), (30, 30)
    )
    for i in range(3):
        memory = tiny_net.encode_reference([lab[i : i + 1]])
        alone = tiny_net.decode(tiny_net.encode(luminance[i : i + 1], memory), (30, 30))
        assert torch.allclose(together[i : i + 1], alone, atol=1e-5)


def test_working_size_at_or_above_the_photo_is_the_paper(tiny_net):
    luminance = torch.rand(1, 1, 24, 32)
    exact = tiny_net.encode(luminance, working_size=32)
    larger = tiny_net.encode(luminance, working_size=500)
    assert exact.color.shape[2:] == (24, 32)
    assert torch.equal(exact.color, larger.color)
    assert tiny_net.encode(luminance, working_size=16).color.shape[2:] == (12, 20)
    for size in ((4, 4000), (1, 100_000), (20_000, 2), (7, 5000), (100, 40_000), (40_000, 57)):
        for side in (32, 128):
            height, width = compute_working_shape(*size, side)
            assert height * width <= 1.125 * side**2, size
            assert height % 4 == width % 4 == 0
    assert tiny_net.encode(torch.rand(1, 1, 4, 4000)).color.shape[2:] == (4, 256)


def test_colour_branch_is_global_and_bounded(tiny_net):
    """Cost of the colour branch does not grow with the photo."""
    features = tiny_net.encode(torch.rand(1, 1, 300, 500))
    height, width = features.color.shape[2:]
    assert height * width <= 1.2 * tiny_net.config.working_size**2
    assert features.source.shape[2:] == (height // 4, width // 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(dtype):
    config = SCSNetConfig(width=16, depth=4, working_size=32)
    net = make(config)
    luminance, lab = torch.rand(1, 1, 32, 32) * 2 - 1, torch.rand(1, 3, 32, 32) * 2 - 1
    exact = net.decode(net.encode(luminance, net.encode_reference([lab])), (64, 64))
    half = net.to(dtype)
    features = half.encode(luminance, half.encode_reference([lab]))
    assert features.color.dtype == dtype
    assert features.luminance.dtype == torch.float32
    got = half.decode(features, (64, 64))
    assert got.dtype == torch.float32
    spread = exact.std()
    assert (got - exact).abs().mean() < 0.03 * spread


def test_progress_counts_to_its_end_and_can_stop_the_work(tiny_net):
    features = tiny_net.encode(torch.rand(1, 1, 64, 64))
    calls = []
    tiny_net.decode(features, (700, 600), progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == list(range(1, len(calls) + 1))
    assert {total for _, total in calls} == {len(calls)}
    assert len(calls) > 10

    class StoppedError(Exception):
        pass

    def stop(done, total):
        raise StoppedError

    with pytest.raises(StoppedError):
        tiny_net.decode(features, (700, 600), progress=stop)
    with pytest.raises(StoppedError):
        tiny_net.encode(torch.rand(1, 1, 64, 64), tile=16, progress=stop)


def test_features_move_and_count_their_bytes(tiny_net):
    reference = tiny_net.encode_reference([torch.rand(1, 3, 16, 16)])
    features = tiny_net.encode(torch.rand(1, 1, 16, 16), reference)
    on_meta = features.to("meta")
    assert on_meta.color.device.type == on_meta.reference.keys_values[2].key.device.type == "meta"
    assert features.nbytes == on_meta.nbytes > features.color.nbytes + features.texture.nbytes


def test_inputs_are_not_written_to(tiny_net):
    luminance, lab = torch.rand(1, 1, 16, 16), torch.rand(1, 3, 16, 16)
    before = luminance.clone(), lab.clone()
    features = tiny_net.encode(luminance, tiny_net.encode_reference([lab]))
    first = tiny_net.decode(features, (40, 40))
    assert torch.equal(tiny_net.decode(features, (40, 40)), first)
    assert torch.equal(luminance, before[0])
    assert torch.equal(lab, before[1])


def test_gradients_pass_through_both_calls():
    net = SCSNet(SCSNetConfig(width=8, depth=1))
    reference = net.encode_reference([torch.rand(1, 3, 16, 16)])
    net.decode(
        net.encode(torch.rand(1, 1, 16, 16), reference), (600, 20), (5, 0, 90, 20)
    ).sum().backward()
    missing = [n for n, p in net.named_parameters() if p.grad is None]
    assert missing == []


@pytest.mark.parametrize("size", [(16, 20), (37, 41)])
@pytest.mark.parametrize("window", [None, (3, 2, 11, 9)])
def test_gradients_change_no_pixel(tiny_net, size, window):
    """With gradients nothing is done in place or block by block."""
    luminance = torch.rand(2, 1, 16, 20)
    plain = tiny_net.decode(tiny_net.encode(luminance), size, window)
    tiny_net.requires_grad_(True)
    learning = tiny_net.decode(tiny_net.encode(luminance), size, window)
    assert learning.requires_grad
    assert torch.allclose(learning, plain, atol=1e-5)


@pytest.mark.parametrize("skip", [True, False])
def test_pixel_shuffle_head_makes_four_times_only(tiny_config, skip):
    net = SCSNet(replace(tiny_config, head="pixel_shuffle", luminance_skip=skip)).eval()
    features = net.encode(torch.rand(1, 1, 10, 7))
    whole = net.decode(features, (40, 28))
    assert whole.shape == (1, 3, 40, 28)
    assert torch.equal(net.decode(features, (40, 28), (3, 5, 9, 8)), whole[..., 3:12, 5:13])
    with pytest.raises(ValueError, match="40 x 28"):
        net.decode(features, (41, 28))


def test_wrong_input_is_named(tiny_net):
    with pytest.raises(ValueError, match=r"luminance \(B, 1, H, W\), got shape \(1, 3, 8, 8\)"):
        tiny_net.encode(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="at least one reference"):
        tiny_net.encode_reference([])
    with pytest.raises(ValueError, match=r"reference \(B, 3, H, W\)"):
        tiny_net.encode_reference([torch.rand(1, 1, 8, 8)])
    with pytest.raises(ValueError, match="one batch size"):
        tiny_net.encode_reference([torch.rand(2, 3, 8, 8), torch.rand(3, 3, 8, 8)])
    two = tiny_net.encode_reference([torch.rand(2, 3, 8, 8)])
    with pytest.raises(ValueError, match="references for 1 or 3 pictures, got 2"):
        tiny_net.encode(torch.rand(3, 1, 8, 8), two)
    with pytest.raises(ValueError, match="working size"):
        tiny_net.encode(torch.rand(1, 1, 8, 8), working_size=2)
    features = tiny_net.encode(torch.rand(1, 1, 8, 8))
    for window in [(0, 0, 0, 5), (-1, 0, 5, 5), (0, 0, 17, 5), (10, 10, 7, 2)]:
        with pytest.raises(ValueError, match="window"):
            tiny_net.decode(features, (16, 16), window)
    with pytest.raises(ValueError, match="at least 1 x 1"):
        tiny_net.decode(features, (0, 16))


def test_blocks_cover_a_window_once():
    seen = torch.zeros(40, 50)
    for block in Window(3, 7, 31, 40).blocks(8, 9):
        seen[block.top : block.bottom, block.left : block.right] += 1
    assert seen[3:34, 7:47].eq(1).all()
    assert seen.sum() == 31 * 40
