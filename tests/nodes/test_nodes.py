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
from host_doubles import Host, InterruptError, MemoryExhaustedError, pack


@pytest.fixture
def model(nodes, scsnet, tiny_config):
    """A loaded network, of the pack's own copy of scsnet."""
    torch.manual_seed(0)
    net = scsnet.SCSNet(scsnet.SCSNetConfig(**tiny_config.to_dict())).eval().requires_grad_(False)
    for block in net.texture_encoder.blocks:
        torch.nn.init.normal_(block.conv2.weight, std=0.1)
    return nodes.types.Model(nodes.host.wrap_network(net), "test")


@pytest.fixture
def photo():
    torch.manual_seed(1)
    coarse = torch.rand(1, 3, 6, 8)
    return (
        torch.nn.functional.interpolate(coarse, (24, 32), mode="bicubic").clamp(0, 1).movedim(1, 3)
    )


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


def test_node_ids(schemas):
    assert list(schemas) == [
        "LoadSCSNet", "SCSColorizeAuto", "SCSColorizeReference", "SCSContinuousUpscale", "AttentionMapViz", "SCSColorHints",
    ]  # fmt: skip


@pytest.mark.parametrize("node", ["SCSColorizeAuto", "SCSColorizeReference"])
def test_bypass_hands_on_the_photo(schemas, node):
    """A frontend connects an output of a bypassed node to the input of the same slot, if their types agree."""
    inputs = [item.id for item in schemas[node].inputs]
    images = [i for i, item in enumerate(schemas[node].outputs) if item.io_type == "IMAGE"]
    assert [inputs[i] for i in images] == ["image"]


def test_two_decimals_can_be_typed(schemas):
    """Frontends cut what is typed to the decimals of `step`."""
    for schema in schemas.values():
        for item in schema.inputs:
            if item.io_type == "FLOAT":
                decimals = len(str(item.values["step"]).split(".")[1])
                assert decimals >= 2, item.id
                assert round(item.values["min"], decimals) == item.values["min"], item.id


def test_translations_cover_every_word(schemas, root):
    english, chinese = (
        json.loads((root / "locales" / name / "nodeDefs.json").read_text("utf-8"))
        for name in ("en", "zh")
    )
    assert english.keys() == chinese.keys() == schemas.keys()
    for node, schema in schemas.items():
        words, translated = english[node], chinese[node]
        assert (words["display_name"], words["description"]) == (
            schema.display_name,
            schema.description,
        )
        assert {name: item["tooltip"] for name, item in words["inputs"].items()} == {
            item.id: item.values["tooltip"] for item in schema.inputs
        }
        assert [item["tooltip"] for item in words["outputs"].values()] == [
            o.values["tooltip"] for o in schema.outputs
        ]
        for part in ("inputs", "outputs"):
            assert translated[part].keys() == words[part].keys()
            assert all(item["name"] and item["tooltip"] for item in translated[part].values())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_help_pages_use_the_names_that_the_nodes_show(schemas, root, language):
    words = json.loads((root / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    for node in schemas:
        path = root / "web" / "docs" / (f"{node}.md" if language == "en" else f"{node}/zh.md")
        page = path.read_text("utf-8")
        for item in [*words[node]["inputs"].values(), *words[node]["outputs"].values()]:
            assert f"`{item['name']}`" in page, (path.name, item["name"])


def test_the_image_keeps_size_and_luminance(nodes, scsnet, model, photo):
    lab, image = auto(nodes, model, photo)
    assert image.shape == photo.shape
    assert image.dtype == torch.float32
    assert 0 <= image.min() <= image.max() <= 1
    # The network's chroma pushes some pixels out of gamut, where clipping moves L: weaken it.
    pale = auto(nodes, model, photo, strength=0.05)[1]
    assert (lightness(scsnet, pale) - lightness(scsnet, photo)).abs().max() < 0.1
    assert lab.size == (24, 32)
    assert lab.lab[0].shape == (1, 3, 24, 32)


def test_only_marked_colours_of_a_reference_count(nodes, model, photo):
    mask = torch.zeros(1, 24, 32)
    mask[:, :8] = 1
    free, masked = (
        by_reference(nodes, model, photo, photo, reference_mask=m)[1] for m in (None, mask)
    )
    assert not torch.allclose(free, masked, atol=1e-4)
    whole = by_reference(nodes, model, photo, photo, reference_mask=torch.ones(24, 32))[1]
    assert torch.allclose(free, whole, atol=1e-3)
    small = torch.nn.functional.interpolate(mask[None], (12, 16))[0]  # of another size: resized
    assert torch.allclose(masked, by_reference(nodes, model, photo, photo, reference_mask=small)[1])
    batch = torch.cat([photo, photo])
    each = by_reference(
        nodes,
        model,
        batch,
        batch,
        reference_batch="one per picture",
        reference_mask=torch.cat([mask, mask]),
    )[1]
    assert torch.allclose(each[:1], masked, atol=1e-3)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(1, 24, 32), "marks nothing"),
        (torch.ones(3, 24, 32), "one for each of 1 references, got 3"),
        (torch.ones(1, 3, 24, 32), "expected a MASK"),
        ("mask", "expected a MASK"),
    ],
)
def test_masks_that_make_no_sense(nodes, model, photo, mask, message):
    with pytest.raises(ValueError, match=f"reference_mask: .*{message}"):
        by_reference(nodes, model, photo, photo, reference_mask=mask)


def test_margins_stay_gray_unless_asked_for(nodes, model, photo):
    framed = torch.ones(1, 36, 44, 3)
    framed[:, 6:30, 6:38] = photo
    lab, image = auto(nodes, model, framed)
    assert lab.features[0].inside == (6, 6, 24, 32)
    spread = image.amax(-1) - image.amin(-1)
    assert spread[:, :6].max() < 0.01
    assert spread[:, 6:30, 6:38].max() > 0.05
    alone = auto(nodes, model, photo)[0]
    assert torch.allclose(lab.features[0].color, alone.features[0].color, atol=1e-5)
    whole, _ = auto(nodes, model, framed, color_margins=True)
    assert whole.features[0].inside is None
    # two pictures share only the margins of both
    narrow = torch.zeros(1, 36, 44, 3)
    narrow[:, 2:34, 2:42] = torch.rand(1, 32, 40, 3)
    both, _ = auto(nodes, model, torch.cat([framed, narrow]))
    assert {chunk.inside for chunk in both.features} == {(2, 2, 32, 40)}
    large = upscaled(nodes, lab, scale=2.0)
    assert (large.amax(-1) - large.amin(-1))[:, :12].max() < 0.01


def test_colours_of_a_film_stay(nodes, scsnet, model):
    """Two scenes, each shifted by a pixel per frame: what moves keeps its colours, the cut starts anew."""
    torch.manual_seed(3)
    scenes = torch.nn.functional.interpolate(torch.rand(2, 1, 12, 16), (48, 64), mode="bicubic")
    scenes[1] = 0.5 * scenes[1] + 0.5
    frames = torch.stack([scenes[n // 6, 0, :40, n % 6 : n % 6 + 48] for n in range(12)])[..., None]
    frames = frames.clamp(0, 1)

    def change(image):
        ab = scsnet.color.rgb_to_lab(image.movedim(3, 1))[:, 1:]
        moved = (ab[1:, ..., :-1] - ab[:-1, ..., 1:]).abs().mean((1, 2, 3))
        return moved[[n for n in range(11) if n != 5]].mean()

    apart = auto(nodes, model, frames)[1]
    lab, film = auto(nodes, model, frames, frames="a film")
    assert change(film) < 0.5 * change(apart)
    for cut in (0, 6):
        assert torch.allclose(film[cut], apart[cut], atol=1e-4)
    # at any size the colours are those of the film
    again = upscaled(nodes, lab, scale=1.0, keep_luminance=True)
    assert torch.allclose(again, film, atol=1e-4)
    by_photo = by_reference(nodes, model, frames, frames[:1].expand(-1, -1, -1, 3), frames="a film")
    assert by_photo[1].shape == film.shape
    with pytest.raises(ValueError, match="frames must be"):
        auto(nodes, model, frames, frames="a slide show")


def test_attention_shows_what_the_network_saw(nodes, model, photo):
    framed = torch.ones(1, 36, 44, 3)
    framed[:, 6:30, 6:38] = photo
    bundles = [by_reference(nodes, model, image, photo)[2] for image in (framed, photo)]
    assert torch.allclose(bundles[0].sources, bundles[1].sources, atol=1e-5)
    framed, alone = (
        nodes.AttentionMapViz.execute(b, "0.3, 0.6", what="both").args for b in bundles
    )
    assert torch.allclose(framed[2], alone[2], atol=1e-3)
    assert torch.allclose(framed[3][:, 6:30, 6:38], alone[3], atol=1e-3)
    assert (framed[3][:, :6] == 1).all()
    assert framed[4] == alone[4]


def hinted(nodes, *arguments, **options):
    return nodes.SCSColorHints.execute(*arguments, **options).args


def test_hints_become_a_masked_reference(nodes, scsnet, model, photo):
    reference, mask = hinted(nodes, photo, "0.5, 0.5 #c02020 0.1")
    assert reference.shape == (1, 24, 32, 3)
    assert mask.shape == (1, 24, 32)
    assert 0 < mask.mean() < 0.1
    assert reference[0, 12, 16, 0] > reference[0, 12, 16, 1] + 0.05
    red = by_reference(nodes, model, photo, reference, reference_mask=mask)[1]
    reference, mask = hinted(nodes, photo, "0.5, 0.5 #2020c0 0.1")
    blue = by_reference(nodes, model, photo, reference, reference_mask=mask)[1]
    assert not torch.allclose(red, blue, atol=1e-3)


def test_hints_with_a_mask_and_other_references(nodes, photo):
    region = torch.zeros(1, 24, 32)
    region[:, :, :16] = 1
    others = torch.rand(2, 10, 10, 3)
    reference, mask = hinted(
        nodes, photo, "0.25, 0.5 #2020c0 0.1", mask=region, mask_color="#208020", references=others
    )
    assert reference.shape == (3, 24, 32, 3)
    assert mask.shape == (3, 24, 32)
    assert torch.equal(mask[0, :, :16], torch.ones(24, 16))
    assert not mask[0, :, 16:].any()
    assert mask[1:].all()
    assert reference[0, 2, 4, 1] > reference[0, 2, 4, 2]  # green
    assert reference[0, 12, 8, 2] > reference[0, 12, 8, 1]  # the hint lies above it


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hints": ""}, "hints: none given"),
        ({"hints": "0.5, 0.5"}, "cannot read the hint"),
        ({"hints": "2, 0.5 #ffffff"}, "x and y in 0..1"),
        (
            {"mask": torch.ones(1, 4, 4), "mask_color": "green"},
            "expected a colour as #6b4a2b, got 'green'",
        ),
        ({"mask": torch.zeros(1, 4, 4)}, "mask: the mask marks nothing"),
    ],
)
def test_hints_that_make_no_sense(nodes, photo, options, message):
    with pytest.raises(ValueError, match=message):
        hinted(nodes, photo, **options)


def test_strength_is_applied_without_another_encoding(nodes, model, photo):
    _, gray = auto(nodes, model, photo, strength=0.0)
    assert (gray.amax(-1) - gray.amin(-1)).max() < 1e-3
    lab, _ = auto(nodes, model, photo, strength=0.5)
    weaker, _ = auto(nodes, model, photo, strength=0.1)
    assert torch.equal(
        upscaled(nodes, lab, scale=1.5, strength=0.2), upscaled(nodes, weaker, scale=1.5)
    )
    assert torch.equal(
        upscaled(nodes, lab, scale=1.5, strength=1.0), upscaled(nodes, lab, scale=1.5)
    )


def test_the_input_is_not_written_to(nodes, model, photo):
    before = photo.clone()
    lab, _ = auto(nodes, model, photo)
    upscaled(nodes, lab, scale=1.7, luminance_image=photo)
    assert torch.equal(photo, before)


def test_gray_and_colour_inputs_of_the_same_luminance_agree(nodes, model):
    gray = torch.rand(1, 16, 16, 1)
    assert torch.allclose(
        auto(nodes, model, gray)[1], auto(nodes, model, gray.expand(-1, -1, -1, 3))[1], atol=1e-4
    )


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"scale": 2.37}, (57, 76)),
        ({"scale": 0.1}, (2, 3)),
        ({"size_by": "width and height", "width": 50, "height": 20}, (20, 50)),
        ({"size_by": "width and height", "width": 64}, (48, 64)),
        ({"size_by": "width and height", "height": 12}, (12, 16)),
        ({"size_by": "megapixels", "megapixels": 0.0012}, (30, 40)),
    ],
)
def test_sizes(nodes, model, photo, options, shape):
    lab, _ = auto(nodes, model, photo)
    assert upscaled(nodes, lab, **options).shape == (1, *shape, 3)


def test_a_window_is_a_part_of_the_whole(nodes, model, photo):
    lab, _ = auto(nodes, model, photo)
    whole = upscaled(nodes, lab, scale=2.5)  # 60 x 80
    part = upscaled(
        nodes, lab, scale=2.5, window_x=0.25, window_y=0.5, window_width=0.5, window_height=0.3
    )
    assert part.shape == (1, 18, 40, 3)
    assert torch.allclose(part, whole[:, 30:48, 20:60], atol=1e-5)


def test_a_window_of_a_result_that_would_be_too_large_as_a_whole(nodes, model, photo):
    lab, _ = auto(nodes, model, photo)
    gigantic = {"size_by": "width and height", "width": 80_000, "height": 60_000}
    with pytest.raises(ValueError, match=r"too large: .* 1500 megapixels"):
        upscaled(nodes, lab, **gigantic)
    part = upscaled(nodes, lab, **gigantic, window_x=0.5, window_width=0.0005, window_height=0.001)
    assert part.shape == (1, 60, 40, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.05}, "scale must be between 0.1 and 16.0, got 0.05"),
        ({"scale": float("nan")}, "scale"),
        ({"size_by": "width and height"}, "width and height are both 0"),
        ({"size_by": "megapixels", "megapixels": -1.0}, "megapixels must be above 0"),
        ({"size_by": "inches"}, "size_by must be 'scale'"),
        ({"window_x": 0.9, "window_width": 0.5}, "must lie inside the picture.*1.400"),
        ({"window_height": 0.0}, "must lie inside the picture"),
        ({"size_by": "megapixels", "megapixels": 1500.0}, "would take .* GiB, but only"),
        (
            {"luminance_image": torch.rand(3, 8, 8, 3)},
            r"luminance_image: expected 1 picture or as many .*\(1\), got 3",
        ),
    ],
)
def test_wrong_sizes_say_what_to_do(nodes, model, photo, options, message):
    lab, _ = auto(nodes, model, photo)
    with pytest.raises(ValueError, match=message):
        upscaled(nodes, lab, **options)


def test_luminance_of_the_photo_and_of_another_picture(nodes, scsnet, model, photo):
    lab, image = auto(nodes, model, photo, strength=0.05)
    assert torch.allclose(upscaled(nodes, lab, scale=1.0, keep_luminance=True), image, atol=1e-5)
    other = torch.full((1, 9, 9, 1), 0.5)
    flat = lightness(scsnet, upscaled(nodes, lab, scale=1.5, luminance_image=other))
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


def test_a_batch_is_its_pictures_one_by_one(nodes, model, photo):
    batch = torch.cat([photo, 1 - photo, photo.flip(2)])
    lab, images = auto(nodes, model, batch)
    assert lab.count == 3
    large = upscaled(nodes, lab, scale=1.3)
    for i in range(3):
        one_lab, one = auto(nodes, model, batch[i : i + 1])
        assert torch.allclose(images[i], one[0], atol=1e-5)
        assert torch.allclose(large[i], upscaled(nodes, one_lab, scale=1.3)[0], atol=1e-5)


def test_changing_the_scale_runs_no_encoder(nodes, model, photo):
    lab, _ = auto(nodes, model, photo)
    ran = []
    net = model.patcher.model
    for name in ("initial", "color_branch", "texture_encoder"):
        getattr(net, name).register_forward_hook(lambda *_, name=name: ran.append(name))
    upscaled(nodes, lab, scale=3.3)
    assert ran == []
    auto(nodes, model, photo)
    assert set(ran) == {"initial", "color_branch", "texture_encoder"}


def test_references_shared_or_one_each(nodes, model, photo):
    batch, references = torch.cat([photo, 1 - photo]), torch.rand(2, 20, 28, 3)
    encoder = model.patcher.model.color_branch.reference_encoder
    calls = []
    encoder.register_forward_hook(lambda *_: calls.append(1))
    shared = by_reference(nodes, model, batch, references)[1]
    assert len(calls) == 2  # two references, once each, for two pictures
    each = by_reference(nodes, model, batch, references, reference_batch="one per picture")[1]
    for i in range(2):
        both = by_reference(nodes, model, batch[i : i + 1], references)[1]
        own = by_reference(nodes, model, batch[i : i + 1], references[i : i + 1])[1]
        assert torch.allclose(shared[i], both[0], atol=1e-5)
        assert torch.allclose(each[i], own[0], atol=1e-5)
    assert not torch.allclose(shared, each, atol=1e-4)


def test_gray_and_transparent_references_are_legal(nodes, model, photo):
    gray = torch.rand(1, 20, 28, 1)
    assert torch.allclose(
        by_reference(nodes, model, photo, gray)[1],
        by_reference(nodes, model, photo, torch.cat([gray.expand(-1, -1, -1, 3), gray], dim=-1))[1],
        atol=1e-5,
    )


def test_one_reference_per_picture_needs_equal_numbers(nodes, model, photo):
    with pytest.raises(ValueError, match="got 3 references for 1 pictures"):
        by_reference(nodes, model, photo, torch.rand(3, 8, 8, 3), reference_batch="one per picture")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda n, m, p: n.SCSColorizeAuto.execute("weights.pt", p),
            "model: expected an SCSNET_MODEL from Load SCSNet, got str",
        ),
        (
            lambda n, m, p: n.SCSColorizeAuto.execute(m, None),
            "image: expected an IMAGE, got NoneType",
        ),
        (
            lambda n, m, p: n.SCSColorizeReference.execute(m, p, {"samples": p}),
            "reference: expected an IMAGE, got dict",
        ),
        (
            lambda n, m, p: n.SCSContinuousUpscale.execute(p),
            "lab: expected an SCS_LAB from .*got Tensor",
        ),
        (
            lambda n, m, p: n.AttentionMapViz.execute(m, "0.5, 0.5"),
            "attention: expected an SCS_ATTENTION from .*got Model",
        ),
        (
            lambda n, m, p: n.SCSColorizeAuto.execute(m, p, strength=-1.0),
            "strength must be 0 or more",
        ),
        (
            lambda n, m, p: n.SCSColorizeAuto.execute(m, p, working_size=2),
            "working size must be at least 4",
        ),
    ],
)
def test_wrong_wiring_says_what_to_connect(nodes, model, photo, call, message):
    with pytest.raises(ValueError, match=message):
        call(nodes, model, photo)


# --- attention ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("0.5, 0.5", [(0.5, 0.5)]),
        (" .25,1 ; 0, 0.125;", [(0.25, 1), (0, 0.125)]),
        ("0.1,0.2\n0.3,0.4", [(0.1, 0.2), (0.3, 0.4)]),
    ],
)
def test_points(nodes, text, points):
    assert nodes.attention.parse_points(text) == points


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "none given"), (" ; ", "none given"), ("0.5", "cannot read '0.5'"), ("0.5, a", "cannot read"),
        ("0.5, 0.5, 0.5", "cannot read"), ("1.2.3, 0", "cannot read"), ("0.5, 1.01", "outside"), ("-0.1, 0", "outside"),
    ],
)  # fmt: skip
def test_wrong_points(nodes, text, message):
    with pytest.raises(ValueError, match=f"points: .*{message}"):
        nodes.attention.parse_points(text)


def test_attention_outputs(nodes, model, photo):
    batch = torch.cat([photo, 1 - photo])
    attention = by_reference(nodes, model, batch, torch.rand(3, 20, 28, 3))[2]
    output = nodes.AttentionMapViz.execute(attention, "0.2, 0.3; 0.9, 0.9")
    figure, heat, mask, uncovered, scores = output.args
    assert figure.shape[0] == 2
    assert figure.shape[3] == 3
    assert heat.shape == (6, 20, 28, 3)
    assert mask.shape == (6, 20, 28)
    assert 0 <= mask.min() <= mask.max() <= 1
    assert mask.max() > 0.3
    assert uncovered.shape == (2, 24, 32)
    assert 0 <= uncovered.min() <= uncovered.max() <= 1
    names = [line.split(":")[0] for line in scores.splitlines()]
    assert names == [f"picture {b}, reference {r}" for b in (1, 2) for r in (1, 2, 3)]
    percent = torch.tensor([int(n) for n in re.findall(r"(\d+)%", scores)]).view(2, 3)
    assert ((1 - uncovered.mean((1, 2))) * 100 - percent.sum(1)).abs().max() < 4
    assert output.ui["scsnet_source"][0]["type"] == "temp"
    valves = nodes.AttentionMapViz.execute(attention, "0.5, 0.5", level="D2", what="valves").args
    assert valves[2].shape == (2, 24, 32)
    both = nodes.AttentionMapViz.execute(
        attention, "0.5, 0.5", level="D2", what="both", color_map="viridis"
    ).args
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
    peak = mask.argmax().item()
    assert abs(peak % 32 - 0.8 * 32) <= 4
    assert abs(peak // 32 - 0.2 * 32) <= 4


def test_points_have_one_colour_in_figures_and_in_the_browser(root):
    from scsnet.attention_figures import _POINT_COLORS

    line = re.search(r"COLORS = \[(.*)\]", (root / "web" / "points.js").read_text())
    assert re.findall(r'"(#\w+)"', line[1]) == _POINT_COLORS


def test_a_level_that_is_not_there(nodes, model, photo):
    attention = by_reference(nodes, model, photo, photo)[2]
    with pytest.raises(ValueError, match="level: this network has D1, D2, D4, got 'D8'"):
        nodes.AttentionMapViz.execute(attention, "0.5, 0.5", level="D8")


# --- memory, progress, interruption -------------------------------------------------------------------------------


def test_the_network_is_loaded_by_the_host_before_each_use(nodes, model, photo, host):
    lab, _ = auto(nodes, model, photo)
    upscaled(nodes, lab, scale=2.0)
    assert [(patcher, force) for patcher, _, force in host.loaded] == [(model.patcher, True)] * 2
    assert all(0 < memory < 2**30 for _, memory, _ in host.loaded)


def test_progress_goes_up_to_the_end(nodes, model, photo, host):
    lab, _ = auto(nodes, model, torch.cat([photo] * 3))
    values, totals = zip(*host.progress, strict=True)
    assert list(values) == sorted(set(values))
    assert set(totals) == {3000}
    assert values[-1] == 3000
    host.progress.clear()
    upscaled(nodes, lab, scale=8.0)
    assert host.progress[-1] == (3000, 3000)
    assert len(host.progress) > 6  # per tile, not only per picture


def test_an_interruption_stops_wherever_it_comes(nodes, model, photo, host):
    auto(nodes, model, photo)  # the first call tries oneDNN's operators
    host.asked = 0
    auto(nodes, model, photo)
    whole = host.asked
    assert whole > 100
    for after in range(0, whole, whole // 7):
        host.asked, host.interrupt_after = 0, after
        with pytest.raises(InterruptError):
            auto(nodes, model, photo)
        assert host.asked == after + 1


def test_less_memory_means_smaller_tiles(nodes, model, photo, host):
    _, whole = auto(nodes, model, photo)
    net, sides = model.patcher.model, []
    decode = type(net).decode_tiles

    def scarce(self, *args, tile, **options):
        sides.append(tile)
        if tile > 64:
            raise MemoryExhaustedError("CUDA out of memory")
        return decode(self, *args, tile=tile, **options)

    type(net).decode_tiles = scarce
    assert torch.allclose(auto(nodes, model, photo)[1], whole, atol=1e-5)
    assert sides == [nodes.host.CPU_TILE, 256, 128, 64]
    assert host.emptied == 3


def test_too_little_memory_is_one_clear_error(nodes, model, photo, host):
    net = model.patcher.model
    lab, _ = auto(nodes, model, photo)

    def scarce(*_, **__):
        raise MemoryExhaustedError("CUDA out of memory")

    type(net).decode_tiles = scarce
    with pytest.raises(
        MemoryExhaustedError, match=r"even with tiles of 64 pixels.*--lowvram"
    ) as caught:
        upscaled(nodes, lab, scale=2.0)
    assert caught.value.__context__ is None


def test_other_errors_are_not_taken_for_memory(nodes, model, photo):
    net = model.patcher.model

    def broken(*_, **__):
        raise RuntimeError("expected scalar type Half but found Float")

    type(net).decode_tiles = broken
    with pytest.raises(RuntimeError, match="expected scalar type"):
        auto(nodes, model, photo)


def test_lab_goes_to_the_gpu_and_everything_beside_it_to_the_host(nodes, host):
    host.device = torch.device("meta")
    host.free = {"meta": 8000, "cpu": 40000}
    assert nodes.host.choose_lab_device(1000) == torch.device("meta")
    assert nodes.host.choose_lab_device(1001) == torch.device("cpu")
    assert nodes.host.has_room_to_spare(10000)
    assert not nodes.host.has_room_to_spare(10001)


def test_a_bundle_lists_its_tensors_for_the_hosts_cache(nodes, scsnet, model, photo):
    """As ComfyUI's RAM-pressure cache counts: tensors in lists, and nothing that has a `patcher`."""
    lab, _, attention = by_reference(nodes, model, torch.cat([photo] * 3), photo)
    for bundle, parts in (
        (lab, (*lab.features, *lab.lab)),
        (
            attention,
            (attention.queries, attention.keys_values, attention.sources, attention.references),
        ),
    ):
        assert isinstance(bundle, list)
        assert all(isinstance(item, torch.Tensor) for item in bundle)
        tensors = list(scsnet.features.list_tensors(parts))
        assert len(tensors) > 5
        assert sum(t.nbytes for t in bundle) == sum(t.nbytes for t in tensors)


def test_nothing_but_the_host_keeps_a_bundle(nodes, model, photo):
    lab, _, attention = by_reference(nodes, model, photo, photo)
    upscaled(nodes, lab, scale=1.5)
    nodes.AttentionMapViz.execute(attention, "0.5, 0.5")
    tensors = [weakref.ref(t) for t in (lab.lab[0], lab.features[0].texture, attention.queries[0])]
    del lab, attention
    gc.collect()
    assert [tensor() for tensor in tensors] == [None, None, None]


def test_a_bundle_that_is_too_large_goes_without_texture(nodes, model, photo, host):
    host.free["cpu"] = 10 * 2**20
    lab, _ = auto(nodes, model, photo)
    assert lab.features[0].texture is not None
    before = upscaled(nodes, lab, scale=1.5)
    nodes.host.has_room_to_spare = lambda nbytes: False
    lab, _ = auto(nodes, model, photo)
    assert lab.features[0].texture is None
    assert torch.allclose(upscaled(nodes, lab, scale=1.5), before, atol=1e-4)


def test_references_travel_once_or_with_their_pictures(nodes, model, photo):
    batch, references = torch.cat([photo] * 3), torch.rand(3, 20, 28, 3)
    shared = by_reference(nodes, model, batch, references)[2]
    assert [len(item) for item in (shared.queries, shared.keys_values)] == [3, 1]
    each = by_reference(nodes, model, batch, references, reference_batch="one per picture")[2]
    assert [len(item) for item in (each.queries, each.keys_values)] == [3, 3]
    heats, uncovered, scores = nodes.AttentionMapViz.execute(each, "0.5, 0.5").args[2:]
    names = [line.split(":")[0] for line in scores.splitlines()]
    assert names == [f"picture {b}, reference {b}" for b in (1, 2, 3)]
    for i in range(3):
        own = by_reference(nodes, model, batch[i : i + 1], references[i : i + 1])[2]
        own_heat, own_uncovered = nodes.AttentionMapViz.execute(own, "0.5, 0.5").args[2:4]
        assert torch.allclose(heats[i], own_heat[0], atol=1e-5)
        assert torch.allclose(uncovered[i], own_uncovered[0], atol=1e-5)


def test_too_many_pictures_are_said_to_be(nodes, model, photo, host):
    host.free["cpu"] = 30_000  # the pictures themselves fit, their features do not
    with pytest.raises(ValueError, match=r"An SCS_LAB of 3 pictures would take .* GiB, but only"):
        auto(nodes, model, torch.cat([photo] * 3))


def test_bundles_say_in_a_few_words_what_they_are(nodes, model, photo):
    lab, _, attention = by_reference(nodes, model, torch.cat([photo] * 3), photo)
    assert str(model) == "SCSNET_MODEL(test, torch.float32)"
    assert str(lab) == "SCS_LAB(3 pictures of 32 x 24 pixels)"
    assert str(attention) == "SCS_ATTENTION(3 pictures, 1 references)"


@pytest.mark.parametrize(
    ("choice", "bf16", "fp16", "dtype"),
    [
        ("auto", True, True, torch.bfloat16), ("auto", False, True, torch.float16), ("auto", False, False, torch.float32),
        ("fp16", True, False, torch.float16), ("bf16", False, False, torch.bfloat16), ("fp32", True, True, torch.float32),
    ],
)  # fmt: skip
def test_the_type_to_compute_in(nodes, host, choice, bf16, fp16, dtype):
    host.bf16, host.fp16 = bf16, fp16
    assert nodes.host.network_dtype(choice) == dtype


def test_the_type_that_the_user_forces(tmp_path):
    host = Host(str(tmp_path), bf16=True, fp16=True, force_fp16=True)
    with pack(host) as module:
        assert module.nodes.host.network_dtype("auto") == torch.float16
        host.fp16 = False  # as on the CPU, where the flag does nothing
        assert module.nodes.host.network_dtype("auto") == torch.bfloat16


def test_half_precision_gives_nearly_the_same(nodes, model, photo):
    whole = auto(nodes, model, photo)[1]
    model.patcher.model.to(torch.bfloat16)
    assert (auto(nodes, model, photo)[1] - whole).abs().mean() < 0.02


def test_images_in_the_hosts_own_type(nodes, model, photo):
    sys.modules["comfy.model_management"].intermediate_dtype = lambda: torch.float16
    lab, image = auto(nodes, model, photo)
    assert image.dtype == torch.float16
    assert upscaled(nodes, lab, scale=1.5).dtype == torch.float16
