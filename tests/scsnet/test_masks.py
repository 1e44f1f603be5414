"""Masked references: only what is marked gives its colours."""

import torch

from scsnet import encode_picture, render
from scsnet.resample import resize_masked, spread_marked_colors


def colorize(net, picture, references, masks):
    features = encode_picture(net, picture, references, reference_masks=masks, working_size=160)
    return render(net, features, (24, 24))


def test_colours_far_from_the_mask_do_not_count(tiny_net):
    picture, mask = torch.rand(1, 1, 24, 24), torch.zeros(1, 1, 160, 160)
    mask[..., 4:9, 4:9] = 1
    first = torch.rand(1, 3, 160, 160)
    second = first.clone()
    second[:, :, 100:] = torch.rand(1, 3, 60, 160)  # beyond what the encoder sees of the mask
    masked = [colorize(tiny_net, picture, [r], [mask]) for r in (first, second)]
    assert torch.allclose(*masked, atol=1e-5)
    free = [colorize(tiny_net, picture, [r], []) for r in (first, second)]
    assert not torch.allclose(*free, atol=1e-3)


def test_each_picture_of_a_batch_has_its_own_mask(tiny_net):
    pictures, references = torch.rand(2, 1, 16, 16), torch.rand(2, 3, 16, 16)
    masks = torch.zeros(2, 1, 16, 16)
    masks[0, 0, 3, 3] = masks[1, 0, 9:, 2:7] = 1
    together = colorize(tiny_net, pictures, [references], [masks])
    for one in (slice(0, 1), slice(1, 2)):
        alone = colorize(tiny_net, pictures[one], [references[one]], [masks[one]])
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
