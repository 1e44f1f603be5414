"""Weights files: a safetensors file that says in its metadata which network it holds.

    net = load("bundled")                                        # the weights that ship
    net = load("path/to.safetensors", device="cuda", dtype=torch.float16)
    net = load("hf:owner/repo/file.safetensors@revision")        # see hub.py
    save("path/to.safetensors", net, dtype=torch.float16, card={"steps": 50_000})

Metadata: ``format`` = "scsnet-1", ``config`` = JSON of SCSNetConfig, ``card`` = JSON of training facts.
Loading is strict, and checks before it takes memory: the header against the size of the file, the
config, then names, shapes and types against a network without memory; NaN and infinity while reading.

Errors: FormatError (a ValueError) names a bad file and the reason; FileNotFoundError and other OSErrors
of the disk; HubError (an OSError) for downloads.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..config import SCSNetConfig
from ..model import SCSNet
from . import hub, safetensors_file
from .safetensors_file import FormatError, Header

__all__ = ["BUNDLED", "FORMAT", "FormatError", "Info", "load", "read_info", "resolve", "save"]

FORMAT = "scsnet-1"
BUNDLED = Path(__file__).parent.parent / "weights" / "scsnet.safetensors"
"""The weights that ship with the package: ``load("bundled")``."""


@dataclass(frozen=True)
class Info:
    """What a weights file says about itself; see `read_info`."""

    path: Path
    config: SCSNetConfig
    tensors: int
    parameters: int
    dtype: str
    """The type of its numbers as the format names it: "F16", "BF16" or "F32"."""
    bytes: int
    sha256: str
    card: dict[str, Any]
    """Training facts; empty when the file has none."""


def resolve(
    source: str | Path,
    *,
    local_dir: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Return the path of the file that a source names: "bundled", a path, or "hf:owner/repo[/file][@revision]".

    local_dir: folder for a file from the Hub; without it, huggingface_hub's own cache.
    progress: called with (bytes done, bytes in all) while a file comes from the Hub.
    Errors: FileNotFoundError; ValueError for a malformed "hf:" source; hub.HubError.
    """
    if source == "bundled":
        if not BUNDLED.is_file():
            raise FileNotFoundError(
                f"Checkpoint not found: {BUNDLED} (the bundled weights); reinstall SCSNet"
            )
        return BUNDLED
    if isinstance(source, str) and source.startswith(hub.PREFIX):
        return hub.fetch(source, local_dir=local_dir, progress=progress)
    path = Path(source).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"Expected a weights file, got a folder: {path}")
    if not path.is_file():
        raise FileNotFoundError(f"Checkpoint not found: {path}")
    return path


def _json(header: Header, key: str) -> Any:
    try:
        return json.loads(header.metadata[key])
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{header.path}: its {key} is not valid JSON: {error}.") from error


def _config(header: Header) -> SCSNetConfig:
    """Return the network's config from the metadata. Raises FormatError for a file of another kind."""
    version = header.metadata.get("format", "")
    if version.startswith("scsnet-") and version != FORMAT:
        raise FormatError(
            f"{header.path} has format {version!r}, expected {FORMAT!r}: update SCSNet to read it."
        )
    if version != FORMAT or not header.entries:
        names = ", ".join(list(header.entries)[:3]) or "none"
        raise FormatError(
            f"{header.path} does not hold SCSNet weights: its metadata has no format {FORMAT!r}. "
            f"It has {len(header.entries)} tensors: {names} ..."
        )
    if "config" not in header.metadata:
        raise FormatError(f"{header.path} lacks the config of its network.")
    try:
        return SCSNetConfig.from_dict(_json(header, "config"))
    except FormatError:
        raise
    except (ValueError, TypeError) as error:
        raise FormatError(f"{header.path}: its config makes no sense: {error}.") from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _compare(header: Header, expected: Mapping[str, Tensor]) -> None:
    """Compare names, shapes and types of a file with those of the network that its config describes."""
    problems = []
    if missing := [name for name in expected if name not in header.entries]:
        problems.append(f"lacks {_some(missing)}")
    if surplus := [name for name in header.entries if name not in expected]:
        problems.append(f"has tensors the network does not know: {_some(surplus)}")
    for name, entry in header.entries.items():
        if name in expected and entry.shape != tuple(expected[name].shape):
            problems.append(
                f"{name} should have shape {tuple(expected[name].shape)}, has {entry.shape}"
            )
        elif entry.dtype not in safetensors_file.DTYPES:
            problems.append(
                f"{name} should be one of {', '.join(safetensors_file.DTYPES)}, is {entry.dtype}"
            )
    if len(dtypes := {entry.dtype for entry in header.entries.values()}) > 1:
        problems.append(f"its numbers should all be of one type, are {', '.join(sorted(dtypes))}")
    if problems:
        more = f"; and {len(problems) - 3} more problems" if len(problems) > 3 else ""
        raise FormatError(
            f"{header.path} does not fit its own config: {'; '.join(problems[:3])}{more}."
        )


class _SkipInitialization(TorchFunctionMode):
    """Skip the random initialization of layers: on the meta device it imports the compiler, which takes 3 s."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def load(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    local_dir: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SCSNet:
    """Load the network of a weights file, in eval mode and without gradients.

    To train it, call `.train().requires_grad_(True)`.

    source, local_dir, progress: see `resolve`. dtype: the file's own by default.
    Errors: FormatError for a bad file, ValueError for weights that dtype cannot hold; those of `resolve`.
    """
    path = resolve(source, local_dir=local_dir, progress=progress)
    header = safetensors_file.read_header(path)
    with torch.device("meta"), _SkipInitialization():
        net = SCSNet(_config(header))
    _compare(header, net.state_dict())
    weights = safetensors_file.read_tensors(path)
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise FormatError(
                f"{path}: {name} holds NaN or infinite numbers; the training went wrong."
            )
        weights[name] = _convert(name, tensor, dtype).to(device)
    net.load_state_dict(weights, strict=True, assign=True)
    uninitialized = [
        name for name, tensor in [*net.named_parameters(), *net.named_buffers()] if tensor.is_meta
    ]
    assert not uninitialized, uninitialized
    return net.eval().requires_grad_(False)


def _convert(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Convert to a dtype, None for none. Raises ValueError if a finite number becomes infinite."""
    if dtype is None or dtype == tensor.dtype:
        return tensor
    converted = tensor.to(dtype)
    if not converted.isfinite().all():
        raise ValueError(
            f"{name} has values that {dtype} cannot represent: up to {tensor.abs().max().item():.3g}"
        )
    return converted


def save(
    path: str | Path,
    net: SCSNet,
    *,
    dtype: torch.dtype | None = None,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Write a weights file, whole or not at all; equal weights, config and card give equal bytes.

    dtype: the weights' own by default; torch.float16 for files to be handed on. card: training facts, JSON-able.
    Errors: ValueError for NaN, infinity, a card that JSON cannot hold; OSError from the disk.
    """
    weights = {}
    for name, tensor in net.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinite numbers; {path} is not written")
        weights[name] = _convert(name, tensor, dtype)
    try:
        facts = json.dumps(dict(card or {}), allow_nan=False)
    except TypeError as error:
        raise ValueError(f"the card cannot be written as JSON: {error}") from error
    metadata = {
        "format": FORMAT,
        "config": json.dumps(net.config.to_dict(), allow_nan=False),
        "card": facts,
    }
    safetensors_file.write(Path(path), weights, metadata)


def read_info(source: str | Path) -> Info:
    """Read what a weights file says about itself, without building a network.

    source: see `resolve`. Errors: FormatError; those of `resolve`.
    """
    path = resolve(source)
    header = safetensors_file.read_header(path)
    config = _config(header)
    card = _json(header, "card") if "card" in header.metadata else {}
    if not isinstance(card, dict):
        raise FormatError(f"{path}: its card is not a mapping.")
    data = path.read_bytes()
    return Info(
        path=path,
        config=config,
        tensors=len(header.entries),
        parameters=sum(math.prod(entry.shape) for entry in header.entries.values()),
        dtype="+".join(sorted({entry.dtype for entry in header.entries.values()})),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        card=card,
    )
