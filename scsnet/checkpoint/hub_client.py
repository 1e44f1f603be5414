"""The Hub's own client, huggingface_hub, behind three calls, and its errors made into one kind.

It is imported when it is first needed, and used through its oldest public names only: a host brings along
whichever release it has.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

PREFIX = "hf:"
DEFAULT_FILE = "weights.safetensors"
Progress = Callable[[int, int], None]

_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubError(OSError):
    """A file could not be fetched. The message says which, why, and what to do."""


@dataclass(frozen=True)
class HubFile:
    """One file of a model repository; revision: a branch, a tag, or a commit (then it is pinned)."""

    repo: str
    file: str = DEFAULT_FILE
    revision: str = "main"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, so that the content can never change."""
        return _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}/{self.file}@{self.revision}"


def _client() -> Any:
    """The module huggingface_hub. Untyped: it must work with every release that a host brings along."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise HubError(
            f"fetching weights needs the package huggingface_hub ({error}); "
            "install it with: pip install huggingface_hub"
        ) from error
    return huggingface_hub


def cached(wanted: HubFile) -> Path | None:
    """The file in the client's cache, at the revision as it was when last asked for."""
    path = _client().try_to_load_from_cache(wanted.repo, wanted.file, revision=wanted.revision)
    return Path(path) if isinstance(path, str) else None


def download(wanted: HubFile, local_dir: Path | None, progress: Progress | None) -> Path:
    """The client's download with its retries; all that it raises becomes HubError.

    What ``progress`` raises is passed on. Clients before 1.0 cannot tell how far they are: no progress.
    """
    hub = _client()
    stops: list[BaseException] = []
    extra: dict[str, Any] = {"local_dir": local_dir} if local_dir else {}
    if progress and "tqdm_class" in inspect.signature(hub.hf_hub_download).parameters:
        extra["tqdm_class"] = _bar(hub, progress, stops)
    try:
        path = hub.hf_hub_download(wanted.repo, wanted.file, revision=wanted.revision, **extra)
    except _errors(hub) as error:
        if error in stops:
            raise
        raise _explained(hub, wanted, error) from error
    return Path(path)


def ask_etag(wanted: HubFile, path: Path) -> str:
    """The hash that the Hub promises for a file just downloaded to the client's cache at path."""
    hub = _client()
    commit = path.parents[wanted.file.count("/")].name  # .../snapshots/<commit>/<file>
    url = hub.hf_hub_url(wanted.repo, wanted.file, revision=commit)
    try:
        return hub.get_hf_file_metadata(url).etag or ""
    except _errors(hub) as error:
        raise _explained(hub, wanted, error) from error


def _bar(hub: Any, progress: Progress, stops: list[BaseException]) -> type:
    """The client's progress bar, not shown: it tells ``progress`` instead, and keeps what that raises."""

    class Bar(hub.utils.tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": True})
            self.done = int(options.get("initial", 0))

        def update(self, n: float | None = 1) -> bool | None:
            result = super().update(n)
            self.done += int(n or 0)  # the n of a bar that is not shown stands still
            try:
                progress(self.done, int(self.total or 0))
            except BaseException as stop:
                stops.append(stop)
                raise
            return cast("bool | None", result)

    return Bar


def find_http_error(hub: Any) -> type[Exception]:
    """The root of the errors of the HTTP library under the client; which library that is, varies."""
    error = hub.errors.HfHubHTTPError.__bases__[0]
    library = error.__module__.split(".")[0]
    return [base for base in error.__mro__ if base.__module__.split(".")[0] == library][-1]


def _errors(hub: Any) -> tuple[type[Exception], ...]:
    """What the client raises. RuntimeError: some releases trip over their own closed connection."""
    return (OSError, RuntimeError, find_http_error(hub), hub.errors.EntryNotFoundError)


def _explained(hub: Any, wanted: HubFile, error: Exception) -> HubError:
    """One error that says which file, why not, and what to do."""
    errors, url = hub.errors, hub.hf_hub_url(wanted.repo, wanted.file, revision=wanted.revision)
    by_hand = f"or download {url} by hand and give the path of the file"
    server = url.split(f"/{wanted.repo}/")[0]
    # "Not found here either" hides what happened on the way.
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    response = getattr(cause, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        reason = f"access is restricted: ask for it at {server}/{wanted.repo}, then log in (hf auth login) or set HF_TOKEN"
    elif isinstance(error, errors.RevisionNotFoundError):
        reason = f"{wanted.repo} has no revision {wanted.revision!r}: see {server}/{wanted.repo}/commits/main"
    elif isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        reason = (
            f"{server} has no repository {wanted.repo!r}, or it is private: check the name, "
            "and for a private one log in (hf auth login) or set HF_TOKEN"
        )
    elif isinstance(error, errors.EntryNotFoundError) and error is cause:
        reason = f"{wanted.repo} has no file {wanted.file!r} at {wanted.revision}: see {server}/{wanted.repo}/tree/{wanted.revision}"
    elif isinstance(cause, errors.OfflineModeIsEnabled):
        reason = f"it is not on this machine, and HF_HUB_OFFLINE forbids the network: unset it, {by_hand}"
    elif status == 403:
        reason = "the server refuses (403): log in (hf auth login) or set HF_TOKEN to a token that may read it"
    elif status is not None:
        reason = f"{server} answered with error {status}: try again later, {by_hand}"
    elif isinstance(cause, (find_http_error(hub), ConnectionError, RuntimeError)):
        reason = (
            f"the connection to {server} failed ({_first_line(cause)}): "
            f"check the network, HF_ENDPOINT and proxies, {by_hand}"
        )
    else:
        reason = f"{_first_line(cause or error)}: try again, {by_hand}"
    return HubError(f"cannot fetch {wanted}: {reason}")


def _first_line(error: BaseException) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return line if len(line) <= 200 else line[:200] + " ..."
