"""References of other photos: which batches have them, what is asked of the result, and that it is learnt."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_run import losses, tiny_config

pytest.importorskip("accelerate")

from training.config import TrainConfig
from training.config.schedule import Mode, Plan
from training.config.stage import Stage
from training.data.dataset import Pairs
from training.data.photos import find_photos
from training.engine.loop import train as run
from training.losses import stranger_loss
from training.models.generator import Generator, build_network

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"strangers_every": 0}, "a r r a r r a r r a r r"),
        ({"strangers_every": 2}, "a r s a r s a r s a r s"),
        ({"strangers_every": 3}, "a r r a s r a r s a r r"),
        ({"strangers_every": 1}, "a s s a s s a s s a s s"),
        ({"strangers_every": 2, "automatic_every": 0}, "r s r s r s r s r s r s"),
        ({"strangers_every": 2, "reference_every": 2}, "r a s a r a s a r a s a"),
        ({"strangers_every": 1, "automatic_every": 1}, "a a a a a a a a a a a a"),
    ],
)
def test_which_batches_have_strangers(fields, kinds):
    plan = Plan(TrainConfig(stages=(Stage(steps=12, **fields),)), 10)
    places = [plan.place(step) for step in range(12)]
    assert [
        "a" if place.automatic else "s" if place.strange else "r" for place in places
    ] == kinds.split()
    assert not any(place.strange and place.mode.supervised for place in places)


def test_what_is_asked_of_a_stranger_by_hand():
    """L 3 off; truth's mean ab (10, 0), the reference's (30, -20): (20, -10) is right, whatever is where."""
    truth, reference = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 4, 4)
    truth[:, 1] = 10.0
    reference[:, 1], reference[:, 2] = 30.0, -20.0
    made = truth.clone()
    made[:, 0] += 3
    made[0, 1] = torch.tensor([[0.0, 40.0], [25.0, 15.0]])
    made[0, 2] = torch.tensor([[-40.0, 20.0], [-20.0, 0.0]])
    assert stranger_loss(made, truth, reference).item() == pytest.approx(3 / 3 / 110)
    made[:, 1] += 4
    made[:, 2] -= 2
    assert stranger_loss(made, truth, reference).item() == pytest.approx((3 + 4 + 2) / 3 / 110)


def test_spots_cost_what_is_asked_and_an_even_move_nothing():
    """Truth's ab (10, 0) and (30, 0), mean (20, 0); the reference's mean (40, -10): (20, -5) and (40, -5) is right."""
    truth, reference = torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 4, 4)
    truth[0, 1, 0] = torch.tensor([10.0, 30.0])
    reference[:, 1], reference[:, 2] = 40.0, -10.0
    even = truth.clone()
    even[:, 1:] += torch.tensor([10.0, -5.0]).view(1, 2, 1, 1)
    spots = even.clone()
    spots[0, 2, 0] += torch.tensor([8.0, -8.0])
    for coherence in (0.0, 0.5, 1.0):
        assert stranger_loss(even, truth, reference, coherence).item() == 0
        asked = 2 * coherence * 4 / 3 / 110  # |8| on one of two planes
        assert stranger_loss(spots, truth, reference, coherence).item() == pytest.approx(asked)


def test_the_reference_is_the_neighbours(photos, tmp_path):
    config = tiny_config(photos, tmp_path)
    entries = find_photos(config.data)
    batch = Pairs(entries, Plan(config, len(entries)))[1, 0]
    torch.manual_seed(0)
    generator = Generator(build_network(config), config).eval()
    plain = Mode(
        automatic=False,
        strange=False,
        texture=False,
        supervised=False,
        distilled=False,
        classified=False,
        coarse=False,
    )
    with torch.no_grad():
        own = generator(batch, plain).planes
        strange = generator(batch, plain._replace(strange=True)).planes
        seen, batch_of_two = [], batch._replace(low=batch.low[[0, 0, 2, 2]])
        for mode in (plain, plain._replace(strange=True)):
            distortion = type(batch.distortion)(*(t[[0, 0, 2, 2]] for t in batch.distortion))
            seen.append(generator(batch_of_two._replace(distortion=distortion), mode).planes)
    assert all(not torch.allclose(a, b, atol=1e-6) for a, b in zip(own, strange, strict=True))
    same = [torch.allclose(a, b, atol=1e-6) for a, b in zip(*seen, strict=True)]
    assert same == [False, True, False, True]  # the second of each pair has its twin's, its own


def test_a_run_judges_strangers_by_the_mean_alone(photos, tmp_path):
    """The logged loss is far below that of other batches: tones of these photos differ much more than their means."""
    config = tiny_config(photos, tmp_path / "run")
    stage = Stage(
        steps=12, batch=8, size=16, texture=False, automatic_every=0, strangers_every=2,
        supervision=0.0, learning_rate=1e-6, warmup=0,
    )  # fmt: skip
    run(replace(config, stages=(stage,), validation=config.data, validate_every=12))
    rows = losses(tmp_path / "run")
    kinds = [{k for k in row if k.endswith("content")} for _, row in sorted(rows.items())]
    assert kinds == [{"ref_content"}, {"stranger_content"}] * 6
    own, strange = (
        np.mean([row[name] for row in rows.values() if name in row])
        for name in ("ref_content", "stranger_content")
    )
    assert strange < 0.5 * own
    (figures,) = (
        row for row in map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines())
        if "swap_moves" in row
    )  # fmt: skip
    assert 0 <= figures["swap_moves"] <= 1


def test_a_run_asks_for_coherence(photos, tmp_path):
    """Untrained, the first step's loss is higher by twice the weighed distance to the photo's own colours."""
    config, first = tiny_config(photos, tmp_path), []
    for coherence in (0.0, 0.5, 1.0):
        stage = Stage(
            steps=1, batch=8, size=16, texture=False, automatic_every=0, strangers_every=1,
            coherence=coherence, supervision=0.0, warmup=0,
        )  # fmt: skip
        run(replace(config, output=str(tmp_path / f"run{coherence}"), stages=(stage,)))
        first.append(losses(tmp_path / f"run{coherence}")[1]["stranger_content"])
    assert first[0] < first[1] - 0.01
    assert first[2] - first[1] == pytest.approx(first[1] - first[0], rel=0.02)


def test_one_picture_at_a_time_has_no_neighbour():
    with pytest.raises(ValueError, match="at least two pictures at a time, got batch 4 in 4 parts"):
        Stage(batch=4, accumulate=4, strangers_every=2)
