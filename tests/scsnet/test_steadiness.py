"""Colours that stay, on films whose motion and colours are known."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from scsnet.films.steadiness import SteadyColors, estimate_motion, estimate_shifts

SIZE = (96, 128)


def scene(seed, base=50.0):
    """LAB (1, 3, 150, 260): detail of all sizes in L*, broad colours."""
    generator = torch.Generator().manual_seed(seed)
    light = sum(
        8
        * F.interpolate(
            torch.randn(1, 1, n, 2 * n, generator=generator), (150, 260), mode="bicubic"
        )
        for n in (5, 15, 40)
    )
    colors = 20 * F.interpolate(
        torch.randn(1, 2, 4, 6, generator=generator), (150, 260), mode="bicubic"
    )
    return torch.cat([(base + light).clamp(0, 100), colors], 1)


def drifting(frames, seed=9, size=6.0):
    """The frames with other broad errors of their colours each, as a network makes that sees each anew."""
    generator = torch.Generator().manual_seed(seed)
    wrong = []
    for frame in frames:
        error = size * torch.randn(1, 2, 3, 4, generator=generator)
        error = F.interpolate(error, frame.shape[2:], mode="bilinear")
        wrong.append(torch.cat([frame[:, :1], frame[:, 1:] + error], 1))
    return wrong


def pan(whole, count, right, down=0):
    height, width = SIZE
    return [
        whole[..., down * n : down * n + height, right * n : right * n + width]
        for n in range(count)
    ]


def change(frames, right, down):
    """Mean absolute change of a and b of the same things from frame to frame."""
    height, width = SIZE
    pairs = pairwise(frames)
    return torch.stack(
        [
            (new[:, 1:, : height - down, : width - right] - old[:, 1:, down:, right:]).abs().mean()
            for old, new in pairs
        ]
    ).mean()


def test_shift_and_motion_are_those_of_the_camera():
    whole = scene(1)[:, :1]
    before, now = whole[..., 20:116, 30:158], whole[..., 27:123, 41:169]
    assert estimate_shifts(before, now)[0] in [(x, y) for x in (10, 11, 12) for y in (6, 7, 8)]
    motion = estimate_motion(before, now)
    inner = motion[..., 12:-12, 16:-16]
    assert (inner - torch.tensor([11.0, 7.0]).view(1, 2, 1, 1)).abs().mean() < 0.1
    # a zoom: what is at p was at 0.97 p, counted from the middle
    grid = F.affine_grid(
        torch.tensor([[[0.97, 0, 0], [0, 0.97, 0]]]), [1, 1, *SIZE], align_corners=False
    )
    closer = F.grid_sample(before, grid, mode="bicubic", padding_mode="border", align_corners=False)
    y, x = (torch.arange(n) + 0.5 - n / 2 for n in SIZE)
    expected = -0.03 * torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1])[None]
    assert (estimate_motion(before, closer) - expected).abs().mean() < 0.15


@pytest.mark.parametrize(("right", "down", "flicker"), [(0, 0, 0), (2, 1, 0), (4, 2, 0), (2, 1, 4)])
def test_colours_of_a_shot_stay_and_come_nearer_to_the_truth(right, down, flicker):
    truth = pan(scene(2), 20, right, down)
    for n, frame in enumerate(truth):
        truth[n] = frame + torch.tensor([flicker * (n % 2), 0, 0]).view(1, 3, 1, 1)
    wrong = drifting(truth)
    steady = SteadyColors()
    result = [steady(frame) for frame in wrong]
    assert change(result, right, down) < change(wrong, right, down) / 3
    assert change(truth, right, down) < 1e-4
    errors = [
        sum((a[:, 1:] - b[:, 1:]).abs().mean() for a, b in zip(frames, truth, strict=True))
        for frames in (result, wrong)
    ]
    assert errors[0] < 0.7 * errors[1]
    assert all(torch.equal(a[:, :1], b[:, :1]) for a, b in zip(result, wrong, strict=True))


def test_a_cut_starts_anew():
    first, second = pan(scene(3), 6, 2), pan(scene(4, base=35.0), 6, 2)
    steady = SteadyColors()
    result = [steady(frame) for frame in drifting(first + second)]
    wrong = drifting(first + second)
    assert torch.equal(result[6], wrong[6])
    assert not torch.equal(result[7], wrong[7])


def test_a_dissolve_leaves_no_colours_behind():
    one, other = scene(5)[..., :96, :128], scene(6)[..., :96, :128]
    other[:, 1:] += 40
    film = [torch.lerp(one, other, n / 24) for n in range(25)] + [other] * 8
    steady = SteadyColors()
    last = [steady(frame) for frame in film][-1]
    assert (last - other)[:, 1:].abs().mean() < 0.2 * (one - other)[:, 1:].abs().mean()


def test_what_moves_across_does_not_take_colours_along():
    """A red square over a green ground that stands still."""
    ground = scene(7)[..., :96, :128].clone()
    ground[:, 1:] = torch.tensor([-30.0, 20.0]).view(1, 2, 1, 1)
    film = []
    for n in range(16):
        frame = ground.clone()
        frame[..., 30:60, 4 * n : 4 * n + 30] = torch.tensor([90.0, 50.0, 30.0]).view(1, 3, 1, 1)
        film.append(frame)
    steady = SteadyColors()
    last = [steady(frame) for frame in film][-1]
    assert (last - film[-1])[:, 1:].abs().mean() < 1.0


def test_frames_in_batches_and_one_by_one_are_the_same():
    film = torch.cat(drifting(pan(scene(8), 5, 3)))
    steady, other = SteadyColors(), SteadyColors()
    one_by_one = torch.cat([steady(frame) for frame in film.split(1)])
    assert torch.equal(other(film), one_by_one)
    # another size starts anew
    small = film[:1, :, :40, :50]
    assert torch.equal(other(small), small)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_tiny_frames(shape):
    steady = SteadyColors()
    for _ in range(3):
        frame = torch.rand(1, 3, *shape) * 50
        assert steady(frame).isfinite().all()


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="expected LAB"):
        SteadyColors()(torch.rand(3, 8, 8))
