"""Weights files: saving, loading, and refusal of damaged or foreign files."""

import io
import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from scsnet import checkpoint
from scsnet.checkpoint import FORMAT, FormatError, safetensors_file, weights_file


def read_metadata(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_loads_what_was_saved(tmp_path, tiny_net, dtype):
    path = tmp_path / "net.safetensors"
    checkpoint.save(path, tiny_net, dtype=dtype, card={"steps": 7, "text": "ü"})
    loaded = checkpoint.load(path)
    path.write_bytes(b"")  # nothing hangs on the file
    assert loaded.config == tiny_net.config
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    expected = {name: value.to(dtype) for name, value in tiny_net.state_dict().items()}
    torch.testing.assert_close(loaded.state_dict(), expected, rtol=0, atol=0)


def test_files_are_those_of_the_safetensors_package(tmp_path, weights, tiny_net):
    torch.testing.assert_close(load_file(weights), dict(tiny_net.state_dict()), rtol=0, atol=0)
    metadata = read_metadata(weights)
    assert metadata["format"] == FORMAT
    other = tmp_path / "other.safetensors"
    checkpoint.save(other, tiny_net, card={"steps": 7})
    assert other.read_bytes() == weights.read_bytes()
    save_file(tiny_net.state_dict(), other, metadata=metadata)
    loaded, expected = checkpoint.load(other, dtype=torch.bfloat16), tiny_net.bfloat16()
    torch.testing.assert_close(loaded.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_missing_files_are_told(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_file, "BUNDLED", weights)
    assert checkpoint.resolve("bundled") == weights
    monkeypatch.setattr(weights_file, "BUNDLED", tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match=r"not found.*bundled weights"):
        checkpoint.load("bundled")
    with pytest.raises(FileNotFoundError, match="not found"):
        checkpoint.load(tmp_path / "none.safetensors")
    with pytest.raises(IsADirectoryError, match="got a folder"):
        checkpoint.load(str(tmp_path))


@pytest.fixture
def refused(weights, monkeypatch):
    """Checks that the file is refused with these words, before a tensor is read."""

    def refused(words):
        monkeypatch.setattr(safetensors_file, "read_tensors", None)
        with pytest.raises(FormatError, match=words) as error:
            checkpoint.load(weights)
        assert str(weights) in str(error.value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 1010

    return refused


def pickle(zipped):
    file = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", r"\(0 bytes\): .*header too small"),
        (b"just some text, nothing else", "not a valid safetensors file, or is truncated"),
        (b"version https://git-lfs.github.com/spec/v1\noid 0", "git lfs pull"),
        (b"<!doctype html><title>404</title>", "web page"),
        (b"GGUF" + bytes(100), "GGUF"),
        (b"\x07\0\0\0\0\0\0\0[[[[[[[", "not a valid safetensors file"),
        (pickle(zipped=True), "PyTorch pickle"),
        (pickle(zipped=False), "Python pickle"),
        (save({"model.layer": torch.zeros(1)}), "not hold SCSNet weights.*model.layer"),
    ],
)
def test_refuses_files_of_another_kind(weights, refused, data, words):
    weights.write_bytes(data)
    refused(words)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"format": "scsnet-2"}, "update SCSNet"),
        ({"config": None}, "lacks the config"),
        ({"config": "{"}, "config is not valid JSON"),
        ({"config": "[" * 200_000}, "config is not valid JSON"),
        ({"config": "[]"}, "config makes no sense"),
        ({"config": "{}"}, "config makes no sense.*lacks the fields.*width"),
        ({"depth": 10**9}, "config makes no sense.*depth"),
        ({"colour": "red"}, "config makes no sense.*unknown fields.*colour"),
        ({"width": 16}, r"should have shape \(.*more problems"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refuses_bad_metadata(weights, tiny_net, refused, metadata, words):
    strings = read_metadata(weights)
    if not metadata.keys() & {"format", "config"}:  # values of the config
        metadata = {"config": json.dumps(json.loads(strings["config"]) | metadata)}
    strings = {name: text for name, text in (strings | metadata).items() if text is not None}
    save_file(tiny_net.state_dict(), weights, metadata=strings)
    refused(words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w | {"extra": torch.zeros(1)}, "does not know: extra"),
        (lambda w: {"initial.weight": w.pop("initial.weight").mT[:4], **w}, "initial.weight should have shape"),
        (lambda w: w | {"initial.weight": w["initial.weight"].int()}, "initial.weight should be one of F32, F16, BF16, is I32"),
        (lambda w: w | {"initial.weight": w["initial.weight"].half()}, "all be of one type, are F16, F32"),
        (lambda w: {"x\n" * 100_000: w.pop("initial.weight"), **w}, "lacks initial.weight"),
    ],
    ids=["surplus", "shape", "type", "mixed types", "name"],
)  # fmt: skip
def test_refuses_tensors_that_do_not_fit_the_config(weights, tiny_net, refused, change, words):
    metadata = read_metadata(weights)
    tensors = {name: tensor.clone() for name, tensor in tiny_net.state_dict().items()}
    save_file({n: t.contiguous() for n, t in change(tensors).items()}, weights, metadata=metadata)
    refused(words)


def test_finds_every_truncation_and_what_is_not_finite(weights):
    data = weights.read_bytes()
    weights.write_bytes(data[:-4] + torch.tensor([float("-inf")]).numpy().tobytes())
    with pytest.raises(FormatError, match="holds NaN or infinite numbers"):
        checkpoint.load(weights)
    for length in [*range(200), *range(200, len(data), 997), len(data) - 1]:
        weights.write_bytes(data[:length])
        with pytest.raises(FormatError, match=rf"truncated \({length:,} bytes\)"):
            checkpoint.load(weights)
    weights.write_bytes(data + b"abc")
    with pytest.raises(FormatError, match="not fully covered"):
        checkpoint.load(weights)


@pytest.mark.parametrize("name", ["tiny.safetensors", "new.safetensors"])
def test_saves_whole_or_not_at_all(weights, tiny_net, monkeypatch, name):
    before = weights.read_bytes()

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(weights.with_name(name), tiny_net, dtype=torch.float16)
    assert weights.read_bytes() == before
    assert list(weights.parent.iterdir()) == [weights]


@pytest.mark.parametrize(
    ("value", "words"),
    [(float("nan"), "holds NaN"), (1e6, r"has values that torch\.float16 cannot represent")],
)
def test_saves_no_numbers_that_are_not_finite(tmp_path, tiny_net, value, words):
    tiny_net.initial.weight.data[0] = value
    with pytest.raises(ValueError, match=rf"initial\.weight {words}"):
        checkpoint.save(tmp_path / "w.safetensors", tiny_net, dtype=torch.float16)
    assert not list(tmp_path.iterdir())
