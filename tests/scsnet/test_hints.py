"""Colour hints, what is painted and where; masked references: only what is marked gives its colours."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from scsnet import encode_picture, render
from scsnet.color import rgb_to_lab
from scsnet.hints import Hint, paint_hints, parse_hints, spread_corrections
from scsnet.resample import resize_masked, spread_marked_colors
from scsnet.tiling import Window


def test_hints_are_parsed():
    hints = parse_hints("0.25, .5 #6b4A2b\n1,0 #fff 0.1; 0.5, 0.5 #010203 0.05 0.5\n")
    assert hints == [
        Hint(0.25, 0.5, (107, 74, 43)),
        Hint(1.0, 0.0, (255, 255, 255), 0.1),
        Hint(0.5, 0.5, (1, 2, 3), 0.05, 0.5),
    ]
    assert parse_hints(" \n;") == []


def test_discs_have_the_colour_of_the_hint_and_the_lightness_of_the_photo():
    torch.manual_seed(0)
    photo = 0.3 + 0.4 * torch.rand(1, 3, 60, 80)
    hints = [Hint(0.25, 0.5, (150, 90, 60), 0.1), Hint(0.75, 0.25, (60, 110, 70), 0.05, 0.5)]
    painted, mask = paint_hints(photo, hints)
    rows, columns = np.mgrid[:60, :80] + 0.5
    discs = [np.hypot(columns - h.x * 80, rows - h.y * 60) <= h.radius * 60 for h in hints]
    marked = discs[0] | discs[1]
    assert np.array_equal(mask[0, 0].numpy() > 0, marked)
    got, before = (rgb2lab(rgb[0].movedim(0, 2).numpy()) for rgb in (painted, photo))
    assert np.abs(got[..., 0] - before[..., 0]).max() < 0.1
    for hint, disc in zip(hints, discs, strict=True):
        color = rgb2lab(np.array(hint.color, np.uint8)[None, None])[0, 0]
        assert np.abs(got[disc][:, 1:] - hint.strength * color[1:]).max() < 0.5
    assert np.abs(got[~marked][:, 1:]).max() < 0.5


def test_a_small_hint_marks_its_pixel_and_a_large_photo_is_reduced():
    _, mask = paint_hints(torch.rand(1, 1, 20, 30), [Hint(0.99, 0.0, (255, 0, 0), 1e-6)])
    assert mask.nonzero().tolist() == [[0, 0, 0, 29]]
    painted, mask = paint_hints(torch.rand(1, 1, 1000, 1500), [Hint(0.5, 0.5, (255, 0, 0))])
    assert painted.shape[2] * painted.shape[3] <= 1.02 * 512**2
    assert mask.sum() == pytest.approx(np.pi * (0.02 * mask.shape[2]) ** 2, rel=0.1)


def test_corrections_reach_similar_places_nearby():
    torch.manual_seed(0)
    prediction = torch.zeros(1, 3, 20, 20)
    prediction[:, 0] = 50.0
    prediction[:, 1, :, 10:] = 40.0  # a thing of another colour
    target, mask = prediction.clone(), torch.zeros(1, 1, 20, 20)
    mask[..., 4:6, 4:6] = 1
    target[:, 1:] += torch.tensor([12.0, -7.0]).view(1, 2, 1, 1)
    shift = spread_corrections(prediction, target, mask)
    marked = mask.expand_as(shift) > 0
    assert torch.allclose(shift[marked], (target - prediction)[:, 1:][marked], atol=1e-4)
    assert shift[0, 0, 5, 8] > 6  # near, and of the same colour
    assert 0 < shift[0, 0, 19, 0] < shift[0, 0, 9, 4]
    assert shift[..., 10:].abs().max() < 1e-3
    assert not spread_corrections(prediction, target, torch.zeros_like(mask)).any()


@pytest.mark.parametrize("margin", [0, 12])
def test_the_last_hint_of_a_place_holds_there(tiny_net, margin):
    """At any size, inside a margin too; an untrained network gives them no colour by itself."""
    torch.manual_seed(2)
    photo = 0.3 + 0.4 * torch.rand(1, 1, 12, 16).repeat_interleave(4, 2).repeat_interleave(4, 3)
    photo = torch.nn.functional.pad(photo, (margin,) * 4, value=1.0)
    height, width = photo.shape[2:]
    colors = [(90, 110, 160), (150, 90, 60)]
    painted = [paint_hints(photo, [Hint(0.5, 0.5, color, 0.15)]) for color in colors]
    references, masks = zip(*painted, strict=True)
    features = encode_picture(tiny_net, photo, references, reference_masks=masks)
    assert (features.inside is not None) == (margin > 0)
    rgb = render(tiny_net, features, (2 * height, 2 * width), luminance="input")
    middle = rgb_to_lab(rgb)[0, 1:, height - 4 : height + 4, width - 4 : width + 4].mean((1, 2))
    color = rgb2lab(np.array(colors[1], np.uint8)[None, None])[0, 0, 1:]
    assert np.linalg.norm(middle.numpy() - color) < 3


def test_masked_references_that_are_other_photos_move_no_colours(tiny_net):
    photo, mask = torch.rand(1, 1, 48, 64), torch.zeros(1, 1, 48, 64)
    mask[..., 20:28, 30:38] = 1
    other = torch.rand(1, 3, 48, 64)
    features = encode_picture(tiny_net, photo, [other], reference_masks=[mask])
    assert features.color_shift is None


def test_hints_hold_in_a_window_of_one_row(tiny_net):
    photo = torch.rand(1, 1, 200, 30)
    reference, mask = paint_hints(photo, [Hint(0.5, 1.0, (150, 90, 60), 0.1)])
    features = encode_picture(
        tiny_net, photo, [reference], reference_masks=[mask], inside=Window(199, 0, 1, 30)
    )
    assert render(tiny_net, features, (200, 30)).isfinite().all()


def render_masked(net, picture, references, masks):
    features = encode_picture(net, picture, references, reference_masks=masks, working_size=160)
    return render(net, features, (24, 24))


def test_colours_far_from_the_mask_do_not_count(tiny_net):
    picture, mask = torch.rand(1, 1, 24, 24), torch.zeros(1, 1, 160, 160)
    mask[..., 4:9, 4:9] = 1
    first = torch.rand(1, 3, 160, 160)
    second = first.clone()
    second[:, :, 100:] = torch.rand(1, 3, 60, 160)  # beyond what the encoder sees of the mask
    masked = [render_masked(tiny_net, picture, [r], [mask]) for r in (first, second)]
    assert torch.allclose(*masked, atol=1e-5)
    free = [render_masked(tiny_net, picture, [r], []) for r in (first, second)]
    assert not torch.allclose(*free, atol=1e-3)


def test_each_picture_of_a_batch_has_its_own_mask(tiny_net):
    pictures, references = torch.rand(2, 1, 16, 16), torch.rand(2, 3, 16, 16)
    masks = torch.zeros(2, 1, 16, 16)
    masks[0, 0, 3, 3] = masks[1, 0, 9:, 2:7] = 1
    together = render_masked(tiny_net, pictures, [references], [masks])
    for one in (slice(0, 1), slice(1, 2)):
        alone = render_masked(tiny_net, pictures[one], [references[one]], [masks[one]])
        assert torch.allclose(together[one], alone, atol=1e-4)


def test_a_thin_stroke_keeps_its_colour_when_reduced():
    color = torch.tensor([0.9, 0.2, 0.1])
    planes, mask = torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    planes[..., 20, :] = color.view(1, 3, 1)
    mask[..., 20, 5:50] = 1
    small, marked = resize_masked(planes, mask, 16)
    assert small.shape == (1, 3, 16, 16)
    assert marked.sum() == 12  # columns 5..49 touch 12 cells of 4 pixels
    found = small.movedim(1, 3)[marked[:, 0] > 0]
    assert torch.allclose(found, color.expand_as(found), atol=1e-5)


def test_marked_colours_spread_and_unmarked_ones_do_not():
    lab, masks = torch.randn(2, 3, 37, 53), torch.zeros(2, 1, 37, 53)
    masks[0, 0, 3, 4] = masks[1, 0, 10:20, 3:9] = 1
    spread = spread_marked_colors(lab, masks)
    assert torch.equal(spread[:, :1], lab[:, :1])
    one = lab[0, 1:, 3:4, 4:5]
    assert torch.allclose(spread[0, 1:], one.expand(-1, 37, 53), atol=1e-5)
    kept = masks.expand_as(lab) > 0
    assert torch.allclose(spread[kept], lab[kept], atol=1e-5)
    changed = torch.where(kept, lab, torch.randn_like(lab))
    assert torch.allclose(spread_marked_colors(changed, masks)[:, 1:], spread[:, 1:], atol=1e-5)
