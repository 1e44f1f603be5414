"""Colours that stay, on films whose motion and colours are known."""

import pytest
import torch
import torch.nn.functional as F

from scsnet.films.steadiness import CutFinder, SteadyColors


def make_planes(channels, height, width, size):
    """Random planes of that detail at `size`."""
    return F.interpolate(torch.randn(1, channels, height, width), size, mode="bicubic")


def make_scene(seed, base=50.0):
    """LAB (1, 3, 150, 260): detail of all sizes in L*, broad colours."""
    torch.manual_seed(seed)
    light = sum(8 * make_planes(1, n, 2 * n, (150, 260)) for n in (5, 15, 40))
    colors = 20 * make_planes(2, 4, 6, (150, 260))
    return torch.cat([(base + light).clamp(0, 100), colors], 1)


def add_drift(frames):
    """Add other broad errors to the colours of each frame, as a network makes that sees each anew."""
    torch.manual_seed(9)
    drifting = [frame.clone() for frame in frames]
    for frame in drifting:
        frame[:, 1:] += 6 * make_planes(2, 3, 4, frame.shape[2:])
    return drifting


def steady(frames):
    colors = SteadyColors()
    return [colors(frame) for frame in frames]


def pan(whole, count, right, down=0):
    return [whole[..., down * n :, right * n :][..., :96, :128] for n in range(count)]


def mean_change(frames, right, down):
    """Mean absolute change of a and b of the same things from frame to frame."""
    old, new = torch.cat(frames[:-1])[:, 1:], torch.cat(frames[1:])[:, 1:]
    return (new[..., : 96 - down, : 128 - right] - old[..., down:, right:]).abs().mean()


def mean_error(frames, truth):
    return (torch.stack(frames) - torch.stack(truth))[:, :, 1:].abs().mean()


def color(*lab):
    return torch.tensor([float(value) for value in lab]).view(1, -1, 1, 1)


@pytest.mark.parametrize(("right", "down", "flicker"), [(0, 0, 0), (2, 1, 0), (4, 2, 0), (2, 1, 4)])
def test_colours_of_a_shot_stay_and_come_nearer_to_the_truth(right, down, flicker):
    shot = pan(make_scene(2), 20, right, down)
    truth = [frame + color(flicker * (n % 2), 0, 0) for n, frame in enumerate(shot)]
    drifting = add_drift(truth)
    result = steady(drifting)
    assert mean_change(result, right, down) < mean_change(drifting, right, down) / 3
    assert mean_change(truth, right, down) < 1e-4
    assert mean_error(result, truth) < 0.7 * mean_error(drifting, truth)
    assert torch.equal(torch.cat(result)[:, 0], torch.cat(drifting)[:, 0])


def test_cuts_are_found_in_the_luminance_and_start_anew():
    one, other = make_scene(3), make_scene(4, base=35.0)
    drifting = add_drift(pan(one, 6, 2) + pan(other, 6, 2))
    result = steady(drifting)
    assert torch.equal(result[6], drifting[6])
    assert not torch.equal(result[7], drifting[7])
    dissolve = [torch.lerp(one, other, n / 8)[..., :96, :128] for n in range(9)]
    cuts = CutFinder()
    found = [cuts.add(frame[:, :1]) for frame in pan(one, 5, 2) + pan(other, 5, 2) + dissolve]
    assert [n for n, begins in enumerate(found) if begins] == [0, 5, 10]


def test_a_dissolve_leaves_no_colours_behind():
    one, other = make_scene(5)[..., :96, :128], make_scene(6)[..., :96, :128]
    other[:, 1:] += 40
    last = steady([torch.lerp(one, other, min(n / 24, 1)) for n in range(33)])[-1]
    assert mean_error([last], [other]) < 0.2 * mean_error([one], [other])


def test_what_moves_across_takes_no_colours_along():
    """A red square over a green ground that stands still."""
    ground = make_scene(7)[..., :96, :128].clone()
    ground[:, 1:] = color(-30, 20)
    film = [ground.clone() for _ in range(16)]
    for n, frame in enumerate(film):
        frame[..., 30:60, 4 * n : 4 * n + 30] = color(90, 50, 30)
    assert mean_error(steady(film)[-1:], film[-1:]) < 1.0


def test_batches_are_frames_one_by_one_and_another_size_starts_anew():
    film = torch.cat(add_drift(pan(make_scene(8), 5, 3)))
    colors = SteadyColors()
    assert torch.equal(colors(film), torch.cat(steady(film.split(1))))
    small = film[:1, :, :40, :50]
    assert torch.equal(colors(small), small)
