"""Files from the Hugging Face Hub: turns "hf:owner/repo[/file][@revision]" into a path on this machine.

`huggingface_hub` downloads, with its cache, retries, HF_ENDPOINT, HF_HUB_OFFLINE and token. It is imported when a
file is asked for, and only names that its older releases have too are used: a ComfyUI brings its own release.
A new file is compared with the SHA-256 that the Hub states for it.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIX = "hf:"
Progress = Callable[[int, int], None]

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_SOURCE = re.compile(
    rf"{PREFIX}(?P<repo>{_NAME}/{_NAME})(?:/(?P<file>(?:{_NAME}/)*{_NAME}\.(?:safetensors|sft)))?"
    rf"(?:@(?P<revision>{_NAME}(?:/{_NAME})*))?"
)


class HubError(OSError):
    """A file could not be fetched. The message says which, why, and what to do."""


@dataclass(frozen=True)
class HubFile:
    """One file of a model repository; revision: a branch, a tag or a commit."""

    repo: str
    file: str = "weights.safetensors"
    revision: str = "main"

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}/{self.file}@{self.revision}"


def parse(source: str) -> HubFile:
    """Parse "hf:owner/repo[/file][@revision]". Raises ValueError for anything else."""
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise ValueError(
            f"expected hf:owner/repo[/file.safetensors][@revision], got {source!r} "
            "(only .safetensors files are read)"
        )
    return HubFile(**{name: value for name, value in match.groupdict().items() if value})


def fetch(
    source: str, *, local_dir: str | Path | None = None, progress: Progress | None = None
) -> Path:
    """Return the file on this machine; download and check it if it is not there.

    local_dir: put it there, as local_dir/file, instead of into the client's cache; a file that is there already is
    returned as it is. progress: called with (bytes done, bytes in all); an exception that it raises ends the download.
    Raises ValueError for a malformed source, HubError, other OSErrors of the disk.
    """
    wanted = parse(source)
    if local_dir is None:
        return _download(wanted, None, progress)
    target = Path(local_dir).expanduser() / wanted.file
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not into the folder itself: there, ComfyUI would offer a file that has not been checked.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
            _download(wanted, folder, progress).replace(target)
    return target


def find_http_error() -> type[Exception]:
    """Return the base class of the errors of the client's HTTP library; which library that is, varies."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _download(wanted: HubFile, folder: str | None, progress: Progress | None) -> Path:
    """Download into a folder, or into the client's cache unless the file is there already."""
    import huggingface_hub as client
    from huggingface_hub.errors import LocalEntryNotFoundError

    place: dict[str, Any] = {
        "repo_id": wanted.repo,
        "filename": wanted.file,
        "revision": wanted.revision,
    }
    extra: dict[str, Any] = {"local_dir": folder} if folder else {}
    # Releases before 1.0 cannot report their progress.
    if progress and "tqdm_class" in inspect.signature(client.hf_hub_download).parameters:
        extra["tqdm_class"] = _make_bar(progress)
    try:
        cached = client.try_to_load_from_cache(**place)
        path = client.hf_hub_download(**place, **extra)
        if path != cached:
            _check(Path(path), wanted, client.hf_hub_url(**place))
    except HubError:
        raise
    except (OSError, RuntimeError, find_http_error()) as error:  # RuntimeError: a closed connection
        # "An error happened ..., not found on this machine either" hides the error that happened.
        cause = (isinstance(error, LocalEntryNotFoundError) and error.__cause__) or error
        reason = " ".join(str(cause).split()).rstrip(".") or type(cause).__name__
        raise HubError(
            f"cannot fetch {wanted}: {reason[:500]}. Check the network, HF_ENDPOINT and HF_TOKEN, "
            f"or download {client.hf_hub_url(**place)} by hand."
        ) from error
    return Path(path)


def _check(path: Path, wanted: HubFile, url: str) -> None:
    """Compare a new file with the hash that the Hub states; delete it unless they are equal."""
    from huggingface_hub import get_hf_file_metadata

    good = False
    try:
        etag = get_hf_file_metadata(url).etag or ""
        if re.fullmatch("[0-9a-f]{64}", etag):
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            good = digest.hexdigest() == etag
        else:  # a mirror, or a file that is not in Git LFS
            logging.getLogger(__name__).warning("%s: %s states no SHA-256 to check", wanted, url)
            good = True
    finally:
        if not good:
            path.resolve().unlink()  # in the cache, path is a link
            path.unlink(missing_ok=True)
    if not good:
        raise HubError(
            f"{wanted} is damaged: it does not have the SHA-256 {etag} that the Hub states. It was deleted; "
            "try again, and if that fails, without the mirror or proxy in between."
        )


def _make_bar(progress: Progress) -> type:
    """Make a class of progress bars for the client that are not shown, but call `progress`."""
    from tqdm import tqdm  # comes with the client

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)  # some releases pass it; tqdm refuses it
            super().__init__(*args, **options | {"disable": True})
            self.done = int(options.get("initial", 0))

        def update(self, n: float | None = 1) -> bool | None:
            self.done += int(n or 0)  # a bar that is not shown does not count
            progress(self.done, int(self.total or 0))
            return None

    return Bar
