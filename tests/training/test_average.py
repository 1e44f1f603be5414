"""The mean of several weights."""

import copy
from dataclasses import replace

import pytest
import torch

from scsnet import SCSNet, checkpoint

pytest.importorskip("accelerate")

from training import average


@pytest.fixture
def nets(tiny_net):
    """Three networks of one kind; the second and third have other numbers."""
    others = [copy.deepcopy(tiny_net) for _ in range(2)]
    for number, net in enumerate(others, 1):
        torch.manual_seed(number)
        for parameter in net.parameters():
            parameter += torch.randn_like(parameter) * 0.1
    return [tiny_net, *others]


def test_the_mean_by_hand(nets):
    states = [copy.deepcopy(net.state_dict()) for net in nets]
    mean = average.mean_network(nets, (0.5, 0.2, 0.3)).state_dict()
    for name, tensor in mean.items():
        by_hand = 0.5 * states[0][name] + 0.2 * states[1][name] + 0.3 * states[2][name]
        assert torch.allclose(tensor, by_hand, atol=1e-6), name


@pytest.mark.parametrize("part", ["color", "encoders"])
def test_only_a_part(part, nets):
    """phi, or phi but for phi_D; everything else is the first network's."""
    first, second = (copy.deepcopy(net.state_dict()) for net in nets[:2])
    averaged = {id(tensor) for tensor in nets[0].color_branch.parameters()}
    if part == "encoders":
        averaged -= {id(tensor) for tensor in nets[0].color_branch.decoder.parameters()}
    of_part = {name for name, p in nets[0].named_parameters() if id(p) in averaged}
    mean = average.mean_network(nets[:2], (0.25, 0.75), part).state_dict()
    assert 0 < len(of_part) < len(mean)
    for name, tensor in mean.items():
        expected = 0.25 * first[name] + 0.75 * second[name] if name in of_part else first[name]
        assert torch.allclose(tensor, expected, atol=1e-6), name


def test_from_files_to_a_file(nets, tmp_path, capsys):
    files = []
    for name, net in zip("ab", nets[:2], strict=True):
        net.config = replace(net.config, working_size={"a": 32, "b": 48}[name])
        files.append(str(tmp_path / f"{name}.safetensors"))
        checkpoint.save(files[-1], net, card={"steps": len(files)})
    output = str(tmp_path / "mean.safetensors")
    average.main(["--weights", *files, "--shares", "3", "1", "--output", output])
    assert capsys.readouterr().out.strip() == output
    made = checkpoint.load(output, dtype=torch.float32)
    assert made.config.working_size == 48
    a, b = (net.initial.weight for net in nets[:2])
    assert torch.allclose(made.initial.weight, 0.75 * a + 0.25 * b, atol=1e-3)
    card = checkpoint.read_info(output).card
    assert card["averaged"] == [
        {"weights": "a.safetensors", "share": 0.75, "card": {"steps": 1}},
        {"weights": "b.safetensors", "share": 0.25, "card": {"steps": 2}},
    ]
    luminance = torch.zeros(1, 1, 8, 8)
    assert made.decode(made.encode(luminance), (8, 8)).isfinite().all()


def test_networks_of_two_kinds(nets):
    other = SCSNet(replace(nets[0].config, attention_scale=7.0))
    with pytest.raises(ValueError, match=r"attention_scale=7\.0"):
        average.mean_network([nets[0], other], (0.5, 0.5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--weights", "a", "--output", "c.safetensors"], "two or more weights, got 1"),
        (
            ["--weights", "a", "b", "--shares", "1", "--output", "c.safetensors"],
            "as many shares as weights, 2, got 1",
        ),
        (
            ["--weights", "a", "b", "--shares", "1", "-1", "--output", "c.safetensors"],
            "whose sum is not 0",
        ),
        (
            ["--weights", "a", "b", "--shares", "nan", "1", "--output", "c.safetensors"],
            "whose sum is not 0",
        ),
        (["--weights", "a", "b"], "a .safetensors file, got ''"),
        (["--weights", "no", "where", "--output", "c.safetensors"], "no"),
        (["--wieghts", "a", "b"], "did you mean --weights"),
    ],
)
def test_what_cannot_be_averaged(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        average.main(options)
    assert error.value.code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_and_b_are_scaled_apart(nets, tmp_path):
    """What the network makes of the mean, a times 1.5 and b times 0.5; L is left alone."""
    file, output = str(tmp_path / "a.safetensors"), str(tmp_path / "scaled.safetensors")
    checkpoint.save(file, nets[0])
    average.main(["--weights", file, file, "--chroma", "1.5", "0.5", "--output", output])
    luminance = torch.rand(1, 1, 16, 16)
    plain, scaled = (
        net.decode(net.encode(luminance, None, working_size=16), (20, 20))
        for net in (checkpoint.load(f, dtype=torch.float32) for f in (file, output))
    )
    factors = torch.tensor([1.0, 1.5, 0.5]).view(1, 3, 1, 1)
    assert plain[:, 1:].abs().mean() > 1e-3
    assert torch.allclose(scaled, plain * factors, atol=2e-3)
    assert checkpoint.read_info(output).card["chroma"] == [1.5, 0.5]
    for words in (["--chroma", "0", "1"], ["--chroma", "1"]):
        with pytest.raises(SystemExit):
            average.main(["--weights", file, file, *words, "--output", output])


def test_the_attention_gets_another_scale(nets, tmp_path):
    """What the network makes of a reference changes with it; a scale that cannot be leaves no file."""
    file, output = str(tmp_path / "a.safetensors"), str(tmp_path / "softer.safetensors")
    checkpoint.save(file, nets[1])
    average.main(["--weights", file, file, "--attention-scale", "2", "--output", output])
    before, softer = (checkpoint.load(f, dtype=torch.float32) for f in (file, output))
    assert (before.config.attention_scale, softer.config.attention_scale) == (30, 2)
    lab, luminance = torch.rand(1, 3, 16, 16), torch.rand(1, 1, 16, 16)
    made = [
        net.decode(
            net.encode(luminance, net.encode_reference([lab], 16), working_size=16), (16, 16)
        )
        for net in (before, softer)
    ]
    assert (made[0] - made[1]).abs().max() > 1e-4
    impossible = tmp_path / "impossible.safetensors"
    with pytest.raises(SystemExit):
        average.main(
            ["--weights", file, file, "--attention-scale", "-1", "--output", str(impossible)]
        )
    assert not impossible.exists()
