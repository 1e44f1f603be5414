"""Files from the Hugging Face Hub: turns "hf:owner/repo[/file][@revision]" into a path on this machine.

The Hub's own client does the work, with its cache, HF_ENDPOINT, HF_HUB_OFFLINE and token; it is imported
only when a file is asked for. Local first: a file that is there and whose revision is a commit (40
hexadecimal digits) costs no network call. Each time, the file's content is compared with the hash that
the Hub has promised for it.

Errors: ValueError for a malformed source, HubError (an OSError) for everything that can go wrong on the way.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import hub_client
from .hub_client import DEFAULT_FILE, PREFIX, HubError, HubFile, Progress

__all__ = ["PREFIX", "HubError", "HubFile", "fetch", "parse"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def parse(source: str) -> HubFile:
    """Takes "hf:owner/repo[/file][@revision]" apart; the file is weights.safetensors unless named.

    Errors: ValueError for anything else, for a file that is not .safetensors, and for "..".
    """
    place, at, revision = source.removeprefix(PREFIX).partition("@")
    parts = place.split("/")
    if (
        not source.startswith(PREFIX)
        or len(parts) < 2
        or not all(_NAME.fullmatch(part) for part in parts)
        or not all(_NAME.fullmatch(part) for part in revision.split("/") if at)
    ):
        raise ValueError(f"expected hf:owner/repo[/file.safetensors][@revision], got {source!r}")
    file = "/".join(parts[2:]) or DEFAULT_FILE
    if not file.endswith((".safetensors", ".sft")):
        raise ValueError(f"only .safetensors files are fetched, got {file!r} in {source!r}")
    return HubFile("/".join(parts[:2]), file, revision or "main")


def fetch(
    source: str, *, local_dir: str | Path | None = None, progress: Progress | None = None
) -> Path:
    """The file on this machine, downloaded if need be, and its content checked.

    local_dir: put it there, as local_dir/file, instead of into the client's cache. A file that is there
    already stays whole until a checked one takes its place. progress: called with (bytes done, bytes in
    all); what it raises ends the download.
    Errors: ValueError for a malformed source; HubError.
    """
    wanted = parse(source)
    if local_dir is None:
        return _into_cache(wanted, progress)
    return _into_folder(wanted, Path(local_dir).expanduser(), progress)


def _into_cache(wanted: HubFile, progress: Progress | None) -> Path:
    before = hub_client.cached(wanted)
    path = hub_client.download(wanted, None, progress)
    if path.is_symlink():  # to blobs/<etag>: the layout of the client's cache
        etag = path.readlink().name
    elif before is not None and path.samefile(before):
        etag = ""  # it was checked when it came; a cache without symbolic links remembers no etag
    else:
        etag = hub_client.ask_etag(wanted, path)
    if not _matches(path, etag, None):
        size = path.stat().st_size
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise _wrong(wanted, size, etag)
    return path


def _into_folder(wanted: HubFile, folder: Path, progress: Progress | None) -> Path:
    """As the client's own local_dir, with the same record of what a file is, but never destructive.

    The client deletes an older file before it downloads the new one, or copies over it in place. So it
    works on a copy in a temporary folder, and the result moves into place when it has been checked.
    """
    target = folder / wanted.file
    commit, etag = _record(folder, wanted)
    if wanted.pinned and commit == wanted.revision and _matches(target, etag, progress):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # When the Hub fails, the client makes do with the older file. If that is another commit than the
        # one asked for, it is asked again without the file, to say what failed.
        if _staged(wanted, folder, progress, older=True) or _staged(
            wanted, folder, progress, older=False
        ):
            return target
    except HubError:
        raise
    except OSError as error:
        raise HubError(f"cannot put {wanted} into {folder}: {error}") from error
    raise HubError(f"cannot fetch {wanted}: the server sent another commit")


def _staged(wanted: HubFile, folder: Path, progress: Progress | None, older: bool) -> bool:
    """Downloads by way of a temporary folder; False when the result is known to be another commit's."""
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as name:
        stage = Path(name)
        target, record = stage / wanted.file, _record_path(stage, wanted)
        if older:
            for new in (target, record):
                if (old := folder / new.relative_to(stage)).is_file():
                    _put(old, new, shutil.copy2)
        before = _stamp(target)
        path = hub_client.download(wanted, stage, progress)
        commit, etag = _record(stage, wanted)
        if wanted.pinned and commit not in ("", wanted.revision):
            return False
        if not _matches(path, etag, progress):
            raise _wrong(wanted, path.stat().st_size, etag)
        if _stamp(target) != before:
            _put(target, folder / wanted.file, Path.replace)
        if record.is_file():
            _put(record, _record_path(folder, wanted), Path.replace)
        return True


def _put(old: Path, new: Path, how: Callable[[Path, Path], object]) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    how(old, new)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Tells a file from the one that replaced it: time and size; None when there is none."""
    return (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None


def _record_path(folder: Path, wanted: HubFile) -> Path:
    """Where the client writes down what a file in a local_dir is: commit, etag, time, a line each."""
    return folder / ".cache" / "huggingface" / "download" / f"{wanted.file}.metadata"


def _record(folder: Path, wanted: HubFile) -> tuple[str, str]:
    """Commit and etag of the file in a local_dir; empty where the file or the record is missing or stale."""
    file, record = folder / wanted.file, _record_path(folder, wanted)
    if not file.is_file() or not record.is_file():
        return "", ""
    commit, etag, time, *_ = [*record.read_text().split("\n"), "", "", ""]
    try:
        fresh = file.stat().st_mtime - 1 <= float(time)  # else the file was changed afterwards
    except ValueError:
        fresh = False
    return (commit, etag) if fresh else ("", "")


def _matches(path: Path, etag: str, progress: Progress | None) -> bool:
    """Return whether a file has the hash of its etag: sha256 (LFS), or git's sha1 (small files).

    An etag of another kind, or none, cannot be checked: that is logged as a warning. `progress` is called repeatedly with
    (all bytes, all bytes), so that it can end this too.
    """
    size = path.stat().st_size
    if _SHA256.fullmatch(etag):
        digest = hashlib.sha256()
    elif _SHA1.fullmatch(etag):
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    else:
        logging.getLogger(__name__).warning(
            "%s was not checked: the server gave no hash that is known (%r)", path.name, etag
        )
        return True
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            if progress is not None:
                progress(size, size)
    return digest.hexdigest() == etag


def _wrong(wanted: HubFile, size: int, etag: str) -> HubError:
    return HubError(
        f"{wanted} is damaged: its {size:,} bytes do not have the hash {etag} that the server promised. "
        "The file was thrown away; try again, and if that fails, without the mirror or proxy in between."
    )
