"""Weights files: what goes in comes out, and no bad file gets far."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scsnet import SCSNet, checkpoint
from scsnet.checkpoint import FORMAT, FormatError, safetensors_file
from training.config import TrainConfig
from training.models.generator import build_network

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def net(tiny_config):
    torch.manual_seed(0)
    return SCSNet(tiny_config)


@pytest.fixture
def path(tmp_path, net):
    """A good weights file."""
    path = tmp_path / "good.safetensors"
    checkpoint.save(path, net, card={"steps": 7})
    return path


def parts(path):
    """Header as a dictionary, and the bytes after it."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def rewrite(path, header, body):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def config_of(header):
    return json.loads(header["__metadata__"]["config"])


# What is saved is what is loaded.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_round_trip(tmp_path, net, dtype):
    path = tmp_path / "net.safetensors"
    checkpoint.save(path, net, dtype=dtype, card={"steps": 7, "text": "ü"})
    loaded = checkpoint.load(path)
    assert loaded.config == net.config
    assert not loaded.training
    for name, value in net.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.to(dtype), rtol=0, atol=0)


def test_loaded_weights_need_no_gradients(path):
    """Decoding under the default grad mode builds no graph."""
    net = checkpoint.load(path)
    assert not net.decode(net.encode(torch.rand(1, 1, 12, 12) - 0.5), (24, 24)).requires_grad
    assert all(parameter.is_leaf for parameter in net.parameters())


def test_training_turns_gradients_on(path):
    net = build_network(TrainConfig(init=str(path), network=checkpoint.read_info(path).config))
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_dtype_on_loading(path):
    assert checkpoint.load(path, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_loaded_network_computes_the_same(path, net):
    luminance = torch.rand(1, 1, 12, 12) - 0.5
    with torch.inference_mode():
        expected, actual = (
            n.decode(n.encode(luminance), (24, 24)) for n in (net.eval(), checkpoint.load(path))
        )
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_the_safetensors_package_reads_it(path, net):
    theirs = load_file(path)
    assert theirs.keys() == net.state_dict().keys()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(theirs[name], value, rtol=0, atol=0)
    with safe_open(path, "pt") as file:
        assert file.metadata()["format"] == FORMAT


def test_files_of_the_safetensors_package_are_read(tmp_path, path, net):
    other = tmp_path / "theirs.safetensors"
    save_file(net.state_dict(), other, metadata=parts(path)[0]["__metadata__"])
    torch.testing.assert_close(
        checkpoint.load(other).state_dict(), net.state_dict(), rtol=0, atol=0
    )


def test_equal_weights_give_equal_files(tmp_path, path, net):
    checkpoint.save(tmp_path / "again.safetensors", net, card={"steps": 7})
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_loaded_weights_do_not_hang_on_the_file(path, net):
    loaded = checkpoint.load(path)
    path.write_bytes(b"")
    torch.testing.assert_close(loaded.state_dict(), net.state_dict(), rtol=0, atol=0)


def test_read_info(path, net):
    info = checkpoint.read_info(path)
    assert info.config == net.config
    assert info.parameters == sum(p.numel() for p in net.parameters())
    assert info.tensors == len(net.state_dict())
    assert (info.path, info.dtype, info.bytes, info.card) == (
        path,
        "F32",
        path.stat().st_size,
        {"steps": 7},
    )
    assert len(info.sha256) == 64


def test_read_info_builds_no_network(path, monkeypatch):
    monkeypatch.setattr("scsnet.checkpoint.weights_file.SCSNet", None)
    monkeypatch.setattr(safetensors_file, "read_tensor", None)
    checkpoint.read_info(path)


# Sources.


def test_bundled(path, monkeypatch):
    monkeypatch.setattr("scsnet.checkpoint.weights_file.BUNDLED", path)
    assert checkpoint.resolve("bundled") == path


def test_bundled_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("scsnet.checkpoint.weights_file.BUNDLED", tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match=r"not found.*bundled weights"):
        checkpoint.load("bundled")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="not found"):
        checkpoint.load(tmp_path / "none.safetensors")


def test_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="got a folder"):
        checkpoint.load(str(tmp_path))


# Bad files: one clear error each, before memory is taken.


def bad(name):
    """Registers a way to spoil a good file and the words that the error must have."""

    def register(spoil):
        BAD[name] = spoil
        return spoil

    return register


BAD = {}


@bad("empty")
def _(path):
    path.write_bytes(b"")
    return "is empty or truncated: 0 bytes"


@bad("five bytes")
def _(path):
    path.write_bytes(b"\x05\0\0\0\0")
    return "is empty or truncated"


@bad("truncated in the header")
def _(path):
    path.write_bytes(path.read_bytes()[:100])
    return "truncated.*has 100 bytes"


@bad("truncated in the tensors")
def _(path):
    path.write_bytes(path.read_bytes()[:-1])
    return "is truncated: [0-9,]+ of [0-9,]+ bytes"


@bad("bytes too many")
def _(path):
    path.write_bytes(path.read_bytes() + b"abc")
    return "3 bytes too many"


@bad("not safetensors")
def _(path):
    path.write_bytes(b"just some text, nothing else")
    return "is not a safetensors file"


@bad("absurd header length")
def _(path):
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    return "header length of 9,223,372"


@bad("pickle of torch")
def _(path):
    torch.save({"a": torch.zeros(2)}, path)
    return "PyTorch pickle"


@bad("older pickle of torch")
def _(path):
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    return "Python pickle"


@bad("pointer of Git LFS")
def _(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    return "git lfs pull"


@bad("web page")
def _(path):
    path.write_text("<!doctype html><title>404</title>")
    return "web page"


@bad("header is not JSON")
def _(path):
    rewrite(path, b"{{{{", b"")
    return "not a valid safetensors file"


@bad("header is not UTF-8")
def _(path):
    rewrite(path, b'{"\xff\xff": 1}', b"")
    return "not a valid safetensors file"


@bad("header is a list")
def _(path):
    rewrite(path, [1], b"")
    return "not a JSON object"


@bad("header is nested without end")
def _(path):
    rewrite(path, b"[" * 200_000, b"")
    return "not a valid safetensors file"


@bad("name twice")
def _(path):
    rewrite(path, b'{"a": 1, "a": 2}', b"")
    return "occurs twice"


@bad("no offsets")
def _(path):
    rewrite(path, {"a": {"dtype": "F32", "shape": [1]}}, b"")
    return "not described by"


@bad("negative shape")
def _(path):
    rewrite(path, {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4))
    return r"shape \[-1\]"


@bad("an offset of 4000 digits")
def _(path):
    rewrite(path, {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**4000]}}, b"")
    return "has offsets"


@bad("a shape of 1000 dimensions")
def _(path):
    entry = {"dtype": "F32", "shape": [2**62] * 1000, "data_offsets": [0, 4]}
    rewrite(path, {"a": entry}, bytes(4))
    return "has shape"


@bad("names as long as a book")
def _(path):
    header, body = parts(path)
    header["x\n" * 100_000] = header.pop("initial.weight")
    rewrite(path, header, body)
    return "lacks initial.weight"


@bad("overlap")
def _(path):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    rewrite(path, {"a": entry, "b": entry}, bytes(4))
    return "overlaps"


@bad("metadata that is not text")
def _(path):
    rewrite(path, {"__metadata__": {"format": 1}}, b"")
    return "__metadata__"


@bad("another model")
def _(path):
    save_file({"model.layer.weight": torch.zeros(3)}, path, metadata={"format": "pt"})
    return "does not hold SCSNet weights.*model.layer.weight"


@bad("later format")
def _(path):
    header, body = parts(path)
    header["__metadata__"]["format"] = "scsnet-2"
    rewrite(path, header, body)
    return "update SCSNet"


@bad("no config")
def _(path):
    header, body = parts(path)
    del header["__metadata__"]["config"]
    rewrite(path, header, body)
    return "lacks the config"


@bad("config is not JSON")
def _(path):
    header, body = parts(path)
    header["__metadata__"]["config"] = "{"
    rewrite(path, header, body)
    return "config is not valid JSON"


@bad("config is nested without end")
def _(path):
    header, body = parts(path)
    header["__metadata__"]["config"] = "[" * 200_000
    rewrite(path, header, body)
    return "config is not valid JSON"


ABSURD = {
    "negative width": {"width": -64},
    "width 0": {"width": 0},
    "10^9 channels": {"width": 10**9},
    "10^9 blocks": {"depth": 10**9},
    "half a channel": {"width": 64.5},
    "width as text": {"width": "64"},
    "width as list": {"width": [64]},
    "attention as list": {"attention": ["none"]},
    "unknown attention": {"attention": "total"},
    "NaN scale": {"chroma_scale": float("nan")},
    "scale 0": {"lightness_scale": 0},
    "unknown option": {"colour": "red"},
    "null": {"depth": None},
}


def absurd(change):
    def spoil(path):
        header, body = parts(path)
        header["__metadata__"]["config"] = json.dumps(config_of(header) | change)
        rewrite(path, header, body)
        return "config makes no sense.*" + next(iter(change))

    return spoil


BAD |= {name: absurd(change) for name, change in ABSURD.items()}


@bad("config lacks a field")
def _(path):
    header, body = parts(path)
    config = config_of(header)
    del config["width"]
    header["__metadata__"]["config"] = json.dumps(config)
    rewrite(path, header, body)
    return "config makes no sense.*width"


@bad("config is a list")
def _(path):
    header, body = parts(path)
    header["__metadata__"]["config"] = "[]"
    rewrite(path, header, body)
    return "config makes no sense"


@bad("config of a wider network")
def _(path):
    header, body = parts(path)
    config = config_of(header)
    header["__metadata__"]["config"] = json.dumps(config | {"width": 2 * config["width"]})
    rewrite(path, header, body)
    return r"should have shape \(.*more problems"


@bad("a tensor is missing")
def _(path):
    header, body = parts(path)
    name = max(
        (n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"][1]
    )
    begin, _ = header.pop(name)["data_offsets"]
    rewrite(path, header, body[:begin])
    return f"lacks {name}"


@bad("a tensor too many")
def _(path):
    header, body = parts(path)
    header["extra"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(body), len(body) + 4]}
    rewrite(path, header, body + bytes(4))
    return "does not know: extra"


@bad("wrong shape of the same size")
def _(path):
    header, body = parts(path)
    name = "initial.weight"
    header[name]["shape"].reverse()
    rewrite(path, header, body)
    return f"{name} should have shape"


@bad("whole numbers")
def _(path):
    header, body = parts(path)
    header["initial.weight"]["dtype"] = "I32"
    rewrite(path, header, body)
    return "initial.weight should be one of F32, F16, BF16, is I32"


@bad("half as many bytes as its shape needs")
def _(path):
    header, body = parts(path)
    for name in header.keys() - {"__metadata__"}:
        header[name]["dtype"] = "F16"
    rewrite(path, header, body)
    return "bytes, too many or too few"


@pytest.mark.parametrize("name", BAD)
def test_bad_file(name, path, monkeypatch):
    words = BAD[name](path)
    monkeypatch.setattr(
        safetensors_file, "read_tensor", None
    )  # no tensor is read, so no memory taken
    with pytest.raises(FormatError, match=words) as error:
        checkpoint.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1010


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none(path, value):
    data = bytearray(path.read_bytes())
    data[-4:] = torch.tensor([value]).numpy().tobytes()
    path.write_bytes(data)
    with pytest.raises(FormatError, match="holds NaN or infinite numbers"):
        checkpoint.load(path)


def test_mixed_types(tmp_path, path, net):
    weights = net.state_dict()
    weights["initial.weight"] = weights["initial.weight"].half()
    safetensors_file.write(tmp_path / "mixed.safetensors", weights, parts(path)[0]["__metadata__"])
    assert load_file(tmp_path / "mixed.safetensors")["initial.weight"].dtype == torch.float16
    with pytest.raises(FormatError, match="all be of one type, are F16, F32"):
        checkpoint.load(tmp_path / "mixed.safetensors")


def test_every_truncation_is_found(path):
    data = path.read_bytes()
    for length in [*range(200), *range(200, len(data), 997), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(FormatError):
            checkpoint.load(path)


def test_flipped_header_bytes_never_crash(path):
    """Any byte of the header changed: it loads (a name in the card, say) or says why not."""
    data = bytearray(path.read_bytes())
    end = 8 + int.from_bytes(data[:8], "little")
    for position in range(0, end, max(1, end // 400)):
        spoiled = bytearray(data)
        spoiled[position] ^= 0x15
        path.write_bytes(spoiled)
        try:
            checkpoint.read_info(path)
        except FormatError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_a_file_that_shrinks_while_it_is_read(path):
    with path.open("rb") as file:
        header = safetensors_file.read_header(file, path)
        last = list(header.entries)[-1]
        os.truncate(path, header.size - 1)
        with pytest.raises(FormatError, match="shortened"):
            safetensors_file.read_tensor(file, header, last)


# Saving: whole or not at all.


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_save_is_whole_or_not_at_all(path, net, monkeypatch, error):
    before = path.read_bytes()

    def fail(_):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        checkpoint.save(path, net, dtype=torch.float16)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_save_leaves_nothing_when_it_fails(tmp_path, net, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        checkpoint.save(tmp_path / "new.safetensors", net)
    assert not list(tmp_path.iterdir())


def test_save_refuses_nan(tmp_path, net):
    net.initial.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match=r"initial\.weight holds NaN"):
        checkpoint.save(tmp_path / "nan.safetensors", net)
    assert not list(tmp_path.iterdir())


def test_save_refuses_what_half_precision_cannot_hold(tmp_path, net):
    net.initial.weight.data[0] = 1e6
    with pytest.raises(ValueError, match=r"that torch\.float16 cannot"):
        checkpoint.save(tmp_path / "big.safetensors", net, dtype=torch.float16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("card", [{"path": Path("x")}, {"loss": float("nan")}])
def test_save_refuses_a_card_that_is_not_json(tmp_path, net, card):
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(tmp_path / "card.safetensors", net, card=card)


def test_save_into_a_missing_folder(tmp_path, net):
    with pytest.raises(FileNotFoundError):
        checkpoint.save(tmp_path / "none" / "x.safetensors", net)


def test_info_can_be_printed(path):
    assert json.dumps(asdict(checkpoint.read_info(path)), default=str)
