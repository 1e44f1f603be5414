"""nodes/ with doubles of ComfyUI: results, shared work, memory, messages."""

import asyncio
import gc
import json
import re
import sys
import weakref
from dataclasses import replace

import pytest
import torch
from host_doubles import InterruptError, MemoryExhaustedError
from torch.nn.functional import interpolate, pad

from scsnet.attention_figures import _POINT_COLORS


@pytest.fixture
def model(nodes, scsnet, tiny_net):
    """`tiny_net` as a loaded network, of the pack's own copy of scsnet."""
    net = scsnet.SCSNet(scsnet.SCSNetConfig(**tiny_net.config.to_dict()))
    net.load_state_dict(tiny_net.state_dict())
    return nodes.types.Model(nodes.host.wrap_network(net.requires_grad_(False)), "test")


@pytest.fixture
def photo():
    torch.manual_seed(1)
    fine = interpolate(torch.rand(1, 3, 6, 8), (24, 32), mode="bicubic")
    return fine.clamp(0, 1).movedim(1, 3)


def lightness(scsnet, image):
    return scsnet.color.rgb_to_lightness(image[..., :3].movedim(3, 1))


def auto(nodes, model, image, **options):
    return nodes.SCSColorizeAuto.execute(model, image, **options).args


def upscaled(nodes, lab, **options):
    return nodes.SCSContinuousUpscale.execute(lab, **options).args[0]


def by_reference(nodes, model, image, reference, **options):
    return nodes.SCSColorizeReference.execute(model, image, reference, **options).args


@pytest.fixture
def schemas(nodes):
    listed = asyncio.run(nodes.SCSNetExtension().get_node_list())
    return {node.define_schema().node_id: node.define_schema() for node in listed}


def test_bypass_hands_on_the_photo(schemas):
    """A frontend connects an output of a bypassed node to the input of the same slot, if their types agree."""
    for node in ("SCSColorizeAuto", "SCSColorizeReference"):
        pairs = zip(schemas[node].inputs, schemas[node].outputs, strict=False)
        assert [item.id for item, output in pairs if output.io_type == "IMAGE"] == ["image"]


@pytest.mark.parametrize(("language", "page"), [("en", "{}.md"), ("zh", "{}/zh.md")])
def test_words_and_help_pages_are_those_of_the_nodes(schemas, root, language, page):
    words = json.loads((root / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    saved = json.loads((root / "tests" / "comfyui" / "object_info.json").read_text("utf-8"))
    assert words.keys() == schemas.keys() == saved.keys()
    for node, schema in schemas.items():
        inputs, outputs = words[node]["inputs"], [*words[node]["outputs"].values()]
        pairs = [(inputs.pop(item.id), item) for item in schema.inputs]
        assert not inputs
        pairs += zip(outputs, schema.outputs, strict=True)
        text = (root / "web" / "docs" / page.format(node)).read_text("utf-8")
        for shown, item in pairs:
            assert f"`{shown['name']}`" in text, (node, shown["name"])
            assert shown["tooltip"] == item.values["tooltip"] or language != "en"
            assert shown["tooltip"]
        if language == "en":
            assert words[node]["display_name"] == schema.display_name
            assert words[node]["description"] == schema.description


def test_image_keeps_size_and_luminance(nodes, scsnet, model, photo):
    before = photo.clone()
    lab, image = auto(nodes, model, photo)
    assert torch.equal(photo, before)
    assert image.shape == photo.shape
    assert image.dtype == torch.float32
    assert 0 <= image.min() <= image.max() <= 1
    assert lab.size == (24, 32)
    # Strong chroma leaves the gamut, where clipping changes the lightness.
    pale = auto(nodes, model, photo, strength=0.05)[1]
    assert (lightness(scsnet, pale) - lightness(scsnet, photo)).abs().max() < 0.1


def test_only_marked_colours_of_a_reference_count(nodes, model, photo):
    mask = torch.zeros(1, 24, 32)
    mask[:, :8] = 1
    small = interpolate(mask[None], (12, 16))[0]
    free, masked, resized = (
        by_reference(nodes, model, photo, photo, reference_mask=m)[1] for m in (None, mask, small)
    )
    assert not torch.allclose(free, masked, atol=1e-4)
    assert torch.allclose(resized, masked)


def test_margins_stay_gray_unless_asked_for(nodes, model, photo):
    framed = pad(photo, (0, 0, 6, 6, 6, 6), value=1.0)
    lab, image, attention = by_reference(nodes, model, framed, photo)
    assert lab.features[0].inside == (6, 6, 24, 32)
    for picture in (image, upscaled(nodes, lab, scale=2.0)):
        assert (picture.amax(-1) - picture.amin(-1))[:, :6].max() < 0.01
    # Attention is that of the photo without them.
    bundles = attention, by_reference(nodes, model, photo, photo)[2]
    assert torch.allclose(*(bundle.sources for bundle in bundles), atol=1e-5)
    around, alone = (
        nodes.AttentionMapViz.execute(b, "0.3, 0.6", what="both").args for b in bundles
    )
    assert torch.allclose(around[2], alone[2], atol=1e-3)
    assert torch.allclose(around[3][:, 6:30, 6:38], alone[3], atol=1e-3)
    assert (around[3][:, :6] == 1).all()
    assert around[4] == alone[4]
    assert auto(nodes, model, framed, color_margins=True)[0].features[0].inside is None
    # Two pictures share only the margins of both.
    narrow = torch.zeros(1, 36, 44, 3)
    narrow[:, 2:34, 2:42] = torch.rand(1, 32, 40, 3)
    both, _ = auto(nodes, model, torch.cat([framed, narrow]))
    assert {chunk.inside for chunk in both.features} == {(2, 2, 32, 40)}


def test_a_film_has_steady_colours_at_any_size(nodes, scsnet, model):
    """Those that SteadyColors makes of the frames coloured one by one."""
    torch.manual_seed(3)
    scenes = interpolate(torch.rand(2, 1, 12, 16), (48, 64), mode="bicubic").clamp(0, 1)
    frames = torch.cat([scenes[n // 3, :, :40, n % 3 : n % 3 + 48] for n in range(6)])[..., None]
    apart, _ = auto(nodes, model, frames)
    lab, film = auto(nodes, model, frames, frames="a film")
    expected = scsnet.SteadyColors()(torch.cat(apart.lab))
    assert torch.allclose(torch.cat(lab.lab), expected, atol=1e-4)
    assert not torch.allclose(expected, torch.cat(apart.lab), atol=0.1)
    again = upscaled(nodes, lab, scale=1.0, keep_luminance=True)
    assert torch.allclose(again, film, atol=1e-4)
    by_photo = by_reference(nodes, model, frames, frames[:1], frames="a film")[1]
    assert by_photo.shape == film.shape


def test_hints_become_a_masked_reference_among_others(nodes, model, photo):
    reference, mask = nodes.SCSColorHints.execute(photo, "0.5, 0.5 #c02020 0.1").args
    assert 0 < mask.mean() < 0.1
    hinted = by_reference(nodes, model, photo, reference, reference_mask=mask)[1]
    assert not torch.allclose(hinted, auto(nodes, model, photo)[1], atol=1e-3)
    region = torch.zeros(1, 24, 32)
    region[:, :, :16] = 1
    options = {"mask": region, "mask_color": "#208020", "references": torch.rand(2, 10, 10, 3)}
    reference, mask = nodes.SCSColorHints.execute(photo, "0.25, 0.5 #2020c0 0.1", **options).args
    assert reference.shape == (3, 24, 32, 3)
    assert torch.equal(mask[:1], region)
    assert mask[1:].all()
    assert reference[0, 2, 4, 1] > reference[0, 2, 4, 2]  # green
    assert reference[0, 12, 8, 2] > reference[0, 12, 8, 1]  # the hint lies above it


def test_references_for_all_pictures_or_one_each(nodes, model, photo):
    batch, references = torch.cat([photo, 1 - photo]), torch.rand(2, 20, 28, 3)
    masks = torch.rand(2, 20, 28).round()

    def colorize(pictures, used, **options):
        options["reference_mask"] = masks[used]
        _, image, bundle = by_reference(nodes, model, batch[pictures], references[used], **options)
        return image, nodes.AttentionMapViz.execute(bundle, "0.5, 0.5").args[2]

    both = slice(0, 2)
    shared, _ = colorize(both, both)
    each, heats = colorize(both, both, reference_batch="one per picture")
    for one in (slice(0, 1), slice(1, 2)):
        assert torch.allclose(shared[one], colorize(one, both)[0], atol=1e-5)
        image, heat = colorize(one, one)
        assert torch.allclose(each[one], image, atol=1e-5)
        assert torch.allclose(heats[one], heat, atol=1e-5)
    assert not torch.allclose(shared, each, atol=1e-4)


PIXELS, MEGAPIXELS = {"size_by": "width and height"}, {"size_by": "megapixels"}


def test_results_have_the_size_asked_for(nodes, model, photo):
    lab, _ = auto(nodes, model, photo)
    for options, shape in (
        ({"scale": 2.37}, (57, 76)),
        ({"scale": 0.1}, (2, 3)),
        (PIXELS | {"width": 50, "height": 20}, (20, 50)),
        (PIXELS | {"width": 64}, (48, 64)),
        (PIXELS | {"height": 12}, (12, 16)),
        (MEGAPIXELS | {"megapixels": 0.0012}, (30, 40)),
    ):
        assert upscaled(nodes, lab, **options).shape == (1, *shape, 3)


def test_a_window_is_a_part_of_a_whole_that_may_be_too_large(nodes, model, photo):
    lab, _ = auto(nodes, model, photo)
    whole = upscaled(nodes, lab, scale=2.5)  # 60 x 80
    window = {"window_x": 0.25, "window_y": 0.5, "window_width": 0.5, "window_height": 0.3}
    part = upscaled(nodes, lab, scale=2.5, **window)
    assert part.shape == (1, 18, 40, 3)
    assert torch.allclose(part, whole[:, 30:48, 20:60], atol=1e-5)
    gigantic = PIXELS | {"width": 80_000, "height": 60_000}
    with pytest.raises(ValueError, match=r"too large: .* 1500 megapixels"):
        upscaled(nodes, lab, **gigantic)
    window = {"window_x": 0.5, "window_width": 0.0005, "window_height": 0.001}
    assert upscaled(nodes, lab, **gigantic, **window).shape == (1, 60, 40, 3)


def test_wrong_inputs_are_named(nodes, model, photo):
    lab, _, attention = by_reference(nodes, model, photo, photo)
    inputs = {
        "SCSColorizeReference": {"model": model, "image": photo, "reference": torch.cat([photo] * 2)},
        "SCSContinuousUpscale": {"lab": lab},
        "SCSColorHints": {"image": photo},
        "AttentionMapViz": {"attention": attention, "points": "0.5, 0.5"},
    }  # fmt: skip
    for node, options, message in (
        ("SCSColorizeReference", {"model": "a"}, "model: expected an SCSNET_MODEL from Load SCSNet, got str"),
        ("SCSColorizeReference", {"frames": "a slide show"}, "frames must be"),
        ("SCSColorizeReference", {"reference_batch": "none"}, "reference_batch must be"),
        ("SCSColorizeReference", {"reference_batch": "one per picture"}, "got 2 references for 1 pictures"),
        ("SCSColorizeReference", {"reference_mask": torch.zeros(1, 9, 9)}, "reference_mask: the mask marks nothing"),
        ("SCSColorizeReference", {"reference_mask": torch.ones(3, 9, 9)}, "one for each of 2 references, got 3"),
        ("SCSColorizeReference", {"reference_mask": torch.ones(1, 3, 9, 9)}, "reference_mask: expected a MASK"),
        ("SCSContinuousUpscale", {"lab": "a"}, "lab: expected an SCS_LAB from .*got str"),
        ("SCSContinuousUpscale", {"scale": 0.05}, "scale must be between 0.1 and 16.0, got 0.05"),
        ("SCSContinuousUpscale", PIXELS, "width and height are both 0"),
        ("SCSContinuousUpscale", {"size_by": "inches"}, "size_by must be 'scale'"),
        ("SCSContinuousUpscale", {"window_x": 0.9, "window_width": 0.5}, "must lie inside the picture.*1.400"),
        ("SCSContinuousUpscale", MEGAPIXELS | {"megapixels": 1500.0}, "would take .* GiB, but only"),
        ("SCSContinuousUpscale", {"luminance_image": torch.rand(3, 8, 8, 3)}, r"luminance_image: .*\(1\), got 3"),
        ("SCSColorHints", {"hints": ""}, "hints: none given"),
        ("SCSColorHints", {"mask": torch.ones(1, 4, 4), "mask_color": "green"}, "a colour as #6b4a2b, got 'green'"),
        ("SCSColorHints", {"mask": torch.zeros(1, 4, 4)}, "mask: the mask marks nothing"),
        ("AttentionMapViz", {"attention": "a"}, "attention: expected an SCS_ATTENTION from .*got str"),
        ("AttentionMapViz", {"points": " ; "}, "points: none given"),
        ("AttentionMapViz", {"points": "0.5, a"}, "points: cannot read '0.5, a'"),
        ("AttentionMapViz", {"points": "0.5, 0.5, 0.5"}, "points: cannot read"),
        ("AttentionMapViz", {"points": "0.5, 1.01"}, "points: .*outside"),
        ("AttentionMapViz", {"level": "D8"}, "level: this network has D1, D2, D4, got 'D8'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            getattr(nodes, node).execute(**inputs[node] | options)


def test_strength_and_luminance_are_chosen_without_colorizing_again(nodes, scsnet, model, photo):
    lab, image = auto(nodes, model, photo, strength=0.5)
    pale, _ = auto(nodes, model, photo, strength=0.05)
    expected = upscaled(nodes, pale, scale=1.5)
    assert torch.equal(upscaled(nodes, lab, scale=1.5, strength=0.1), expected)
    assert torch.allclose(upscaled(nodes, lab, scale=1.0, keep_luminance=True), image, atol=1e-5)
    other = torch.full((1, 9, 9, 1), 0.5)
    flat = lightness(scsnet, upscaled(nodes, pale, scale=1.5, luminance_image=other))
    assert (flat - lightness(scsnet, other).mean()).abs().max() < 0.1


def test_alpha_is_kept_and_resized(nodes, model, photo):
    alpha = torch.zeros(1, 24, 32, 1)
    alpha[:, :, 16:] = 1
    lab, image = auto(nodes, model, torch.cat([photo, alpha], dim=-1))
    assert torch.equal(image[..., 3:], alpha)
    assert torch.equal(image[..., :3], auto(nodes, model, photo)[1])
    large = upscaled(nodes, lab, scale=2.0)
    assert large.shape == (1, 48, 64, 4)
    assert large[0, 10, 5, 3] < 0.01
    assert large[0, 10, 60, 3] > 0.99
    part = upscaled(nodes, lab, scale=2.0, window_x=0.5, window_width=0.5)
    assert torch.allclose(part, large[:, :, 32:], atol=1e-5)


def test_points_are_separated_by_semicolons_or_lines(nodes):
    text = " .25,1 ; 0, 0.125;\n0.3,0.4"
    assert nodes.attention.parse_points(text) == [(0.25, 1), (0, 0.125), (0.3, 0.4)]


def test_attention_gives_figures_maps_masks_and_scores(nodes, model, photo):
    batch = torch.cat([photo, 1 - photo])
    attention = by_reference(nodes, model, batch, torch.rand(3, 20, 28, 3))[2]
    output = nodes.AttentionMapViz.execute(attention, "0.2, 0.3; 0.9, 0.9")
    assert output.ui["scsnet_source"][0]["type"] == "temp"
    figure, heat, mask, uncovered, scores = output.args
    assert (figure.shape[0], figure.shape[3]) == (2, 3)
    assert heat.shape == (*mask.shape, 3) == (6, 20, 28, 3)
    assert uncovered.shape == (2, 24, 32)
    assert all(0 <= plane.min() <= plane.max() <= 1 for plane in (mask, uncovered))
    names = [line.split(":")[0] for line in scores.splitlines()]
    assert names == [f"picture {b}, reference {r}" for b in (1, 2) for r in (1, 2, 3)]
    percent = torch.tensor([int(n) for n in re.findall(r"(\d+)%", scores)]).view(2, 3)
    assert ((1 - uncovered.mean((1, 2))) * 100 - percent.sum(1)).abs().max() < 4
    valves, both = (
        nodes.AttentionMapViz.execute(attention, "0.5, 0.5", "D2", what, "viridis").args
        for what in ("valves", "both")
    )
    assert valves[2].shape == (2, 24, 32)
    assert both[0].shape[1] > valves[0].shape[1]


def test_the_heat_is_where_the_network_looks(nodes, model):
    """A reference that is the photo itself, and queries equal to keys: each point finds itself."""
    level = model.patcher.model.color_branch.cross_attention.levels[0]
    level.pre_source.load_state_dict(level.pre_reference.state_dict())
    level.query.load_state_dict(level.key.state_dict())
    torch.manual_seed(3)
    features = torch.randn(1, 32, 8, 8)
    attention = by_reference(nodes, model, torch.rand(1, 32, 32, 3), torch.rand(1, 32, 32, 3))[2]
    memory = model.patcher.model.color_branch.cross_attention.compute_keys_values([features])
    attention = replace(attention, queries=(features,), keys_values=(memory,))
    mask = nodes.AttentionMapViz.execute(attention, "0.8, 0.2", level="D1").args[2][0]
    y, x = divmod(mask.argmax().item(), 32)
    assert (x, y) == pytest.approx((0.8 * 32, 0.2 * 32), abs=4)


def test_points_have_one_colour_in_figures_and_in_the_browser(root):
    line = re.search(r"COLORS = \[(.*)\]", (root / "web" / "points.js").read_text())
    assert re.findall(r'"(#\w+)"', line[1]) == _POINT_COLORS


def test_the_host_loads_the_network_and_shows_progress(nodes, model, photo, host):
    lab, _ = auto(nodes, model, torch.cat([photo] * 3))
    values, totals = zip(*host.progress, strict=True)
    assert list(values) == sorted(set(values))
    assert set(totals) == {values[-1]} == {3000}
    host.progress.clear()
    upscaled(nodes, lab, scale=8.0)
    assert host.progress[-1] == (3000, 3000)
    assert len(host.progress) > 6  # per tile, not only per picture
    assert [(patcher, force) for patcher, _, force in host.loaded] == [(model.patcher, True)] * 2
    assert all(0 < memory < 2**30 for _, memory, _ in host.loaded)


def test_an_interruption_stops_wherever_it_comes(nodes, model, photo, host):
    auto(nodes, model, photo)  # the first call tries oneDNN's operators
    host.asked = 0
    auto(nodes, model, photo)
    whole = host.asked
    for after in range(0, whole, whole // 7):
        host.asked, host.interrupt_after = 0, after
        with pytest.raises(InterruptError):
            auto(nodes, model, photo)
        assert host.asked == after + 1


def test_less_memory_means_smaller_tiles(nodes, scsnet, model, photo, monkeypatch):
    whole, decode = auto(nodes, model, photo)[1], scsnet.SCSNet.decode_tiles
    error, largest = MemoryExhaustedError("CUDA out of memory"), 64

    def scarce(self, *args, tile, **options):
        if tile > largest:
            raise error
        return decode(self, *args, tile=tile, **options)

    monkeypatch.setattr(scsnet.SCSNet, "decode_tiles", scarce)
    assert torch.allclose(auto(nodes, model, photo)[1], whole, atol=1e-5)
    largest = 63
    with pytest.raises(MemoryExhaustedError, match=r"even with tiles of 64 .*--lowvram") as caught:
        auto(nodes, model, photo)
    assert caught.value.__context__ is None  # whose traceback would hold tensors
    error = RuntimeError("expected scalar type Half but found Float")
    with pytest.raises(RuntimeError, match="expected scalar type"):
        auto(nodes, model, photo)


def test_the_host_sees_what_bundles_hold_and_alone_keeps_them(nodes, scsnet, model, photo):
    """ComfyUI's RAM-pressure cache counts the tensors in lists; its messages contain the `repr` of inputs."""
    lab, _, attention = by_reference(nodes, model, torch.cat([photo] * 3), photo)
    assert str(lab) == "SCS_LAB(3 pictures of 32 x 24 pixels)"
    assert str(attention) == "SCS_ATTENTION(3 pictures, 1 references)"
    inside = (lab.features, lab.lab)
    assert list(map(id, lab)) == list(map(id, scsnet.features.list_tensors(inside)))
    inside = (attention.queries, attention.keys_values, attention.sources, attention.references)
    assert list(map(id, attention)) == list(map(id, scsnet.features.list_tensors(inside)))
    upscaled(nodes, lab, scale=1.5)
    nodes.AttentionMapViz.execute(attention, "0.5, 0.5")
    tensors = [weakref.ref(t) for t in (lab.lab[0], lab.features[0].texture, attention.queries[0])]
    del lab, attention, inside
    gc.collect()
    assert [tensor() for tensor in tensors] == [None, None, None]


def test_large_bundles_go_without_texture_or_are_refused(nodes, model, photo, host):
    lab, _ = auto(nodes, model, photo)
    before = upscaled(nodes, lab, scale=1.5)
    host.free["cpu"] = lab.features[0].nbytes
    lab, _ = auto(nodes, model, photo)
    assert lab.features[0].texture is None
    assert torch.allclose(upscaled(nodes, lab, scale=1.5), before, atol=1e-4)
    host.free["cpu"] = 30_000  # the pictures themselves fit, their features do not
    with pytest.raises(ValueError, match=r"An SCS_LAB of 3 pictures would take .* GiB, but only"):
        auto(nodes, model, torch.cat([photo] * 3))


def test_type_to_compute_in_follows_the_choice_and_the_flags(nodes, host):
    for choice, flags, dtype in (
        ("auto", ["bf16", "fp16"], torch.bfloat16),
        ("auto", ["fp16"], torch.float16),
        ("auto", [], torch.float32),
        ("auto", ["bf16", "fp16", "force_fp16"], torch.float16),
        ("auto", ["bf16", "force_fp16"], torch.bfloat16),  # as the CPU, which ignores the flag
        ("fp16", ["bf16"], torch.float16),
    ):
        vars(host).update({flag: flag in flags for flag in ("bf16", "fp16", "force_fp16")})
        assert nodes.host.network_dtype(choice) == dtype


def test_images_have_the_hosts_own_type(nodes, model, photo):
    sys.modules["comfy.model_management"].intermediate_dtype = lambda: torch.float16
    lab, image = auto(nodes, model, photo)
    assert image.dtype == torch.float16
    assert upscaled(nodes, lab, scale=1.5).dtype == torch.float16
