"""Weights files: saving, loading, and refusal of damaged or foreign files."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scsnet import SCSNet, checkpoint
from scsnet.checkpoint import FORMAT, FormatError, safetensors_file, weights_file
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
    """Returns the header as a dictionary, and the bytes after it."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def rewrite(path, header, body):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


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


def test_read_info(path, net, monkeypatch):
    monkeypatch.setattr(weights_file, "SCSNet", None)  # no network is built
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
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert json.dumps(asdict(info), default=str)


# Sources.


def test_bundled(path, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_file, "BUNDLED", path)
    assert checkpoint.resolve("bundled") == path
    monkeypatch.setattr(weights_file, "BUNDLED", tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match=r"not found.*bundled weights"):
        checkpoint.load("bundled")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="not found"):
        checkpoint.load(tmp_path / "none.safetensors")
    with pytest.raises(IsADirectoryError, match="got a folder"):
        checkpoint.load(str(tmp_path))


# Bad files: one clear error each, before memory is taken.


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def spoil(path, header=None, config=None, metadata=None, body=b""):
    """Rewrite a good file with changes to its header, config or metadata (None deletes), and bytes after it."""
    old, data = parts(path)
    strings = old["__metadata__"]
    strings |= {"config": json.dumps(json.loads(strings["config"]) | (config or {}))}
    strings |= metadata or {}
    old["__metadata__"] = {k: v for k, v in strings.items() if v is not None}
    old |= header or {}
    rewrite(path, {k: v for k, v in old.items() if v is not None}, data + body)


NOT_OURS = {
    "empty": (b"", r"\(0 bytes\): .*header too small"),
    "five bytes": (b"\x05\0\0\0\0", "header too small"),
    "text": (b"just some text, nothing else", "not a valid safetensors file, or is truncated"),
    "absurd header length": ((2**63).to_bytes(8, "little") + b"{}", "header too large"),
    "pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid 0", "git lfs pull"),
    "web page": (b"<!doctype html><title>404</title>", "web page"),
    "GGUF": (b"GGUF" + bytes(100), "GGUF"),
}
HEADERS = {
    "not JSON": (b"{{{{", b"", "JSON"),
    "not UTF-8": (b'{"\xff\xff": 1}', b"", "UTF-8"),
    "a list": ([1], b"", "JSON"),
    "nested without end": (b"[" * 200_000, b"", "JSON"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, b"", "missing field"),
    "negative shape": ({"a": entry(shape=[-1])}, bytes(4), "-1"),
    "an offset of 4000 digits": ({"a": entry(offsets=[0, 10**4000])}, b"", "out of range"),
    "a shape of 1000 dimensions": ({"a": entry(shape=[2**62] * 1000)}, bytes(4), "overflow"),
    "too few bytes for its shape": ({"a": entry(dtype="F16")}, bytes(4), "invalid shape"),
    "unknown type": ({"a": entry(dtype="F31")}, bytes(4), "F31"),
    "overlap": ({"a": entry(), "b": entry()}, bytes(4), "offset for tensor"),
    "gap": ({"a": entry(), "b": entry(offsets=[8, 12])}, bytes(12), "offset for tensor"),
    "metadata that is not text": ({"__metadata__": {"format": 1}}, b"", "expected a string"),
    "another model": ({"model.layer": entry()}, bytes(4), "not hold SCSNet weights.*model.layer"),
}
METADATA = {
    "later format": ({"format": "scsnet-2"}, "update SCSNet"),
    "no config": ({"config": None}, "lacks the config"),
    "config is not JSON": ({"config": "{"}, "config is not valid JSON"),
    "config is nested without end": ({"config": "[" * 200_000}, "config is not valid JSON"),
    "config is a list": ({"config": "[]"}, "config makes no sense"),
    "config is empty": ({"config": "{}"}, "config makes no sense.*width"),
}


@pytest.fixture
def refused(path, monkeypatch):
    """Checks that the file is refused with these words, before a tensor is read."""

    def refused(words):
        monkeypatch.setattr(safetensors_file, "read_tensors", None)
        with pytest.raises(FormatError, match=words) as error:
            checkpoint.load(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 1010

    return refused


@pytest.mark.parametrize("name", NOT_OURS)
def test_a_file_of_another_kind(name, path, refused):
    path.write_bytes(NOT_OURS[name][0])
    refused(NOT_OURS[name][1])


@pytest.mark.parametrize(("zipped", "words"), [(True, "PyTorch pickle"), (False, "Python pickle")])
def test_a_pickle(path, refused, zipped, words):
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
    refused(words)


@pytest.mark.parametrize("name", HEADERS)
def test_a_bad_header(name, path, refused):
    header, body, words = HEADERS[name]
    rewrite(path, header, body)
    refused(words)


@pytest.mark.parametrize("name", METADATA)
def test_bad_metadata(name, path, refused):
    spoil(path, metadata=METADATA[name][0])
    refused(METADATA[name][1])


@pytest.mark.parametrize(
    "config",
    [{"width": -64}, {"depth": 10**9}, {"attention": ["none"]}, {"colour": "red"}],
    ids=str,
)
def test_a_bad_config(config, path, refused):
    spoil(path, config=config)
    refused("config makes no sense.*" + next(iter(config)))


def test_tensors_that_are_not_of_the_config(path, net, refused):
    header, body = parts(path)
    first, end = header["initial.weight"], len(body)
    good = path.read_bytes()
    for changes, words in (
        ({"config": {"width": 2 * net.config.width}}, r"should have shape \(.*more problems"),
        (
            {"header": {"extra": entry(offsets=[end, end + 4])}, "body": bytes(4)},
            "does not know: extra",
        ),
        (
            {"header": {"initial.weight": first | {"shape": first["shape"][::-1]}}},
            "initial.weight should have shape",
        ),
        (
            {"header": {"initial.weight": first | {"dtype": "I32"}}},
            "initial.weight should be one of F32, F16, BF16, is I32",
        ),
        (
            {"header": {"initial.weight": None, "x\n" * 100_000: first}},
            "lacks initial.weight",
        ),
    ):
        path.write_bytes(good)
        spoil(path, **changes)
        refused(words)


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
    """Bytes after the end of the last tensor are found as well."""
    data = path.read_bytes()
    for length in [*range(200), *range(200, len(data), 997), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(FormatError, match=rf"truncated \({length:,} bytes\)"):
            checkpoint.load(path)
    path.write_bytes(data + b"abc")
    with pytest.raises(FormatError, match="not fully covered"):
        checkpoint.load(path)


def test_flipped_header_bytes_never_crash(path):
    """A file with one changed header byte either loads or raises FormatError."""
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


def test_a_file_that_shrinks_while_it_is_read(path, monkeypatch):
    compare = weights_file._compare
    monkeypatch.setattr(
        weights_file, "_compare", lambda *a: (compare(*a), os.truncate(path, 10_000))
    )
    with pytest.raises(FormatError, match="truncated"):
        checkpoint.load(path)


# Saving: whole or not at all.


@pytest.mark.parametrize("name", ["good.safetensors", "new.safetensors"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_save_is_whole_or_not_at_all(path, net, monkeypatch, error, name):
    before = path.read_bytes()

    def fail(_):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        checkpoint.save(path.with_name(name), net, dtype=torch.float16)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("value", "words"),
    [(float("nan"), "holds NaN"), (1e6, r"has values that torch\.float16 cannot represent")],
)
def test_save_refuses_numbers(tmp_path, net, value, words):
    net.initial.weight.data[0] = value
    with pytest.raises(ValueError, match=rf"initial\.weight {words}"):
        checkpoint.save(tmp_path / "w.safetensors", net, dtype=torch.float16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("card", [{"path": Path("x")}, {"loss": float("nan")}])
def test_save_refuses_a_card_that_is_not_json(tmp_path, net, card):
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(tmp_path / "card.safetensors", net, card=card)


def test_save_into_a_missing_folder(tmp_path, net):
    with pytest.raises(FileNotFoundError):
        checkpoint.save(tmp_path / "none" / "x.safetensors", net)
