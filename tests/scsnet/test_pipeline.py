"""The calling contract: pictures in, pictures out."""

import pytest
import torch
from einops import reduce

from scsnet import (
    SCSNet,
    SCSNetConfig,
    checkpoint,
    device,
    encode_picture,
    encode_references,
    output_size,
    render,
)
from scsnet.color import denormalize_lab, lab_to_rgb, rgb_to_lab, rgb_to_lightness
from scsnet.device import choose_device, choose_dtype
from scsnet.resample import resample_bicubic


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        ({"scale": 4}, (40, 80)),
        ({"scale": 2.7}, (27, 54)),
        ({"scale": 0.01}, (1, 1)),
        ({"size": (7, 9)}, (7, 9)),
        ({"long_side": 100}, (50, 100)),
        ({"megapixels": 2.0}, (1000, 2000)),
    ],
)
def test_output_size(ask, expected):
    assert output_size(10, 20, **ask) == expected


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({}, "expected one of"),
        ({"scale": 2, "long_side": 9}, "expected one of"),
        ({"scale": 0}, "scale must be above 0"),
        ({"scale": -1.5}, "scale must be above 0"),
        ({"scale": float("inf")}, "scale must be above 0"),
        ({"scale": float("nan")}, "scale must be above 0"),
        ({"long_side": 0}, "long side must be above 0"),
        ({"megapixels": -1}, "megapixels must be above 0"),
        ({"size": (0, 5)}, "at least 1 x 1"),
        ({"scale": 1e30}, "too large"),
        ({"size": (60_000, 60_000)}, "too large"),
        ({"long_side": 200_000}, "too large"),
    ],
)
def test_output_size_refuses_nonsense(ask, message):
    with pytest.raises(ValueError, match=message):
        output_size(10, 20, **ask)


def test_render_is_decode_in_rgb(tiny_net):
    rgb = torch.rand(2, 3, 20, 24)
    features = encode_picture(tiny_net, rgb)
    lab = denormalize_lab(tiny_net.decode(features, (50, 60)), tiny_net.config)
    picture = render(tiny_net, features, (50, 60))
    assert torch.allclose(picture, lab_to_rgb(lab, clip=True), atol=1e-5)
    whole = render(tiny_net, features, (50, 60), dtype=torch.uint8)
    assert whole.dtype == torch.uint8
    assert (whole.float() / 255 - picture).abs().max() <= 0.5 / 255 + 1e-6
    window = render(tiny_net, features, (50, 60), (10, 20, 30, 40))
    assert torch.allclose(window, picture[..., 10:40, 20:60], atol=1e-5)


@pytest.mark.parametrize(
    ("size", "multiple"),
    [((21, 17), (3, 3)), ((40, 30), (2, 2)), ((7, 90), (9, 1)), ((1, 1), (60, 50))],
)
def test_a_smaller_picture_is_the_mean_of_cells(tiny_net, size, multiple):
    features = encode_picture(tiny_net, torch.rand(2, 3, 60, 50))
    fine = tiny_net.decode(features, (size[0] * multiple[0], size[1] * multiple[1]))
    means = reduce(
        fine, "b c (h down) (w across) -> b c h w", "mean", down=multiple[0], across=multiple[1]
    )
    expected = lab_to_rgb(denormalize_lab(means, tiny_net.config), clip=True)
    got = render(tiny_net, features, size)
    assert torch.allclose(got, expected, atol=1e-5)
    calls = []
    small_tiles = render(
        tiny_net, features, size, tile=13, progress=lambda done, total: calls.append((done, total))
    )
    assert torch.allclose(small_tiles, expected, atol=1e-5)
    assert [done for done, _ in calls] == list(range(1, calls[-1][1] + 1))
    if min(size) > 10:
        part = render(tiny_net, features, size, (3, 5, 11, 10))
        assert torch.allclose(part, expected[..., 3:14, 5:15], atol=1e-5)


def test_fine_stripes_become_their_mean(tiny_net):
    stripes = torch.zeros(1, 1, 64, 64)
    stripes[..., ::2] = 1  # CPM alone would pick black or white
    with torch.no_grad():
        for weight in tiny_net.head.parameters():
            weight.zero_()  # what is left is the luminance under CPM
    features = encode_picture(tiny_net, stripes)
    points = denormalize_lab(tiny_net.decode(features, (24, 24)), tiny_net.config)[:, 0]
    small = rgb_to_lab(render(tiny_net, features, (24, 24)))[:, 0]
    assert small.std() < 0.5 * points.std()
    assert 45 < small.mean() < 55


def test_only_the_luminance_of_a_colour_picture_counts(tiny_net):
    rgb = torch.rand(1, 3, 16, 16)
    gray = lab_to_rgb(rgb_to_lab(rgb) * torch.tensor([1.0, 0, 0])[:, None, None])[:, :1]
    from_colour = render(tiny_net, encode_picture(tiny_net, rgb), (32, 32))
    from_gray = render(tiny_net, encode_picture(tiny_net, gray), (32, 32))
    assert (from_colour - from_gray).abs().max() < 2e-3


def test_strength_multiplies_chroma(tiny_net):
    features = encode_picture(tiny_net, torch.rand(1, 1, 16, 16))
    none = render(tiny_net, features, (16, 16), strength=0.0)
    assert (none.max(1).values - none.min(1).values).max() < 1e-3
    full = rgb_to_lab(render(tiny_net, features, (16, 16), strength=0.1))
    half = rgb_to_lab(render(tiny_net, features, (16, 16), strength=0.05))
    inside = full[:, 1:].abs().amax(1) < 20
    ratio = half[:, 1:].norm(dim=1)[inside].sum() / full[:, 1:].norm(dim=1)[inside].sum()
    assert 0.45 < ratio < 0.55


def test_luminance_can_be_the_inputs_or_any_plane(tiny_net):
    rgb = torch.rand(1, 3, 30, 26) * 0.6 + 0.2
    features = encode_picture(tiny_net, rgb)
    kept = render(tiny_net, features, (61, 47), luminance="input", strength=0.0)
    expected = resample_bicubic(rgb_to_lightness(rgb), (61, 47))
    assert (rgb_to_lightness(kept) - expected).abs().max() < 0.05
    part = render(tiny_net, features, (61, 47), (9, 8, 40, 30), luminance="input", strength=0.0)
    assert torch.allclose(part, kept[..., 9:49, 8:38], atol=1e-5)
    other = torch.rand(1, 1, 90, 91) * 60 + 20
    given = render(tiny_net, features, (61, 47), luminance=other, strength=0.0)
    assert (rgb_to_lightness(given) - resample_bicubic(other, (61, 47))).abs().max() < 0.05


def test_large_chroma_from_colour_reference_shared_by_a_batch(tiny_net):
    photos, reference = torch.rand(3, 1, 20, 20), torch.rand(1, 3, 30, 20)
    memory = encode_references(tiny_net, [reference])
    together = render(tiny_net, encode_picture(tiny_net, photos, memory), (20, 20))
    inline = render(tiny_net, encode_picture(tiny_net, photos, [reference]), (20, 20))
    assert torch.equal(together, inline)
    for i in range(3):
        alone = render(tiny_net, encode_picture(tiny_net, photos[i : i + 1], memory), (20, 20))
        assert torch.allclose(together[i : i + 1], alone, atol=1e-4)


def test_result_goes_where_it_is_told(tiny_net):
    features = encode_picture(tiny_net, torch.rand(1, 1, 12, 12))
    whole = torch.zeros(2, 3, 24, 24)
    got = render(tiny_net, features, (24, 24), out=whole[:1])
    assert got.data_ptr() == whole.data_ptr()
    assert whole[0].abs().sum() > 0
    assert whole[1].abs().sum() == 0
    with pytest.raises(ValueError, match="expected out of shape"):
        render(tiny_net, features, (24, 24), out=torch.zeros(1, 3, 23, 24))


@pytest.mark.parametrize(
    "wrong",
    [
        torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8),
        torch.randint(0, 2, (1, 3, 8, 8)),
        torch.rand(1, 3, 8, 8) * 255,
        torch.rand(1, 3, 8, 8) * 2 - 1,
        torch.rand(1, 3, 8, 8).index_fill(3, torch.tensor([2]), float("nan")),
        torch.rand(1, 3, 8, 8).index_fill(3, torch.tensor([2]), float("inf")),
    ],
    ids=["uint8", "int64", "0..255", "-1..1", "nan", "inf"],
)
def test_pictures_that_would_be_misread_are_refused(tiny_net, wrong):
    with pytest.raises(ValueError, match=r"a picture .*0\.\.1"):
        encode_picture(tiny_net, wrong)
    with pytest.raises(ValueError, match=r"a reference .*0\.\.1"):
        encode_references(tiny_net, [wrong])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_pictures_of_any_float_type_that_overshoot_a_little_are_taken(tiny_net, dtype):
    rgb = (torch.rand(1, 3, 8, 8) * 1.2 - 0.1).to(dtype)
    assert encode_picture(tiny_net, rgb, [rgb]).color.isfinite().all()


def test_wrong_arguments_are_named(tiny_net):
    with pytest.raises(ValueError, match="a picture"):
        encode_picture(tiny_net, torch.rand(1, 4, 8, 8))
    with pytest.raises(ValueError, match="a reference"):
        encode_picture(tiny_net, torch.rand(1, 1, 8, 8), [torch.rand(1, 1, 8, 8)])
    features = encode_picture(tiny_net, torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="strength"):
        render(tiny_net, features, (8, 8), strength=float("nan"))
    with pytest.raises(ValueError, match="luminance must be"):
        render(tiny_net, features, (8, 8), luminance="output")
    with pytest.raises(ValueError, match="expected luminance"):
        render(tiny_net, features, (8, 8), luminance=torch.rand(1, 3, 8, 8))


def test_devices_and_dtypes():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device must be one of"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="cuda is not available"):
            choose_device("cuda")
    assert choose_dtype(torch.device("cpu"), "float16") == torch.float16
    assert choose_dtype(torch.device("cpu")) in (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match="dtype must be one of"):
        choose_dtype(torch.device("cpu"), "int8")


@pytest.mark.parametrize(
    ("quota", "threads"),
    [("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("max 100000", 4), ("", 4)],
)
def test_threads_stay_within_a_containers_quota(monkeypatch, tmp_path, quota, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(device, "CPU_QUOTA", tmp_path / "cpu.max")
    assert device.choose_threads() == 4  # no such file
    device.CPU_QUOTA.write_text(quota)
    assert device.choose_threads() == threads


def test_attention_of_features_of_the_pipeline(tmp_path):
    """With loaded weights and default grad mode: `encode_picture` gives inference tensors."""
    checkpoint.save(tmp_path / "tiny.safetensors", SCSNet(SCSNetConfig(width=8, depth=1)))
    net = checkpoint.load(tmp_path / "tiny.safetensors", dtype=torch.float32)
    features = encode_picture(net, torch.rand(1, 1, 16, 20), [torch.rand(1, 3, 16, 16)])
    (weights,) = net.attention(features, [(0.5, 0.5)])
    assert weights.sum().item() == pytest.approx(1, abs=1e-4)
    assert all(valve.shape[1] == 1 for valve in net.valves(features))
