"""Downloads in a background thread, so that a waiting node can be interrupted although the network is silent."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

from ..scsnet.checkpoint import hub
from . import host

POLL_INTERVAL = 0.05  # seconds


class DownloadCancelled(Exception):  # noqa: N818  not an error: the waiting node was interrupted
    """Ends a download whose node was interrupted."""


class Download(Thread):
    """Downloads one file from the Hub into a folder."""

    running: dict[Path, Download] = {}  # noqa: RUF012
    """By target. ComfyUI runs one node at a time; interrupted downloads may still be ending beside it."""

    def __init__(self, source: str, folder: Path) -> None:
        super().__init__(
            daemon=True, name=f"download {source}"
        )  # does not keep ComfyUI from exiting
        self.source, self.folder = source, folder
        self.progress = (0, 0)
        self.cancelled = False
        self.path: Path | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        """Download; called by the thread."""
        try:
            self.path = hub.fetch(self.source, local_dir=self.folder, progress=self._report)
        except Exception as error:  # noqa: BLE001  raised again by `fetch`, in the node's thread
            self.error = error

    def _report(self, done: int, total: int) -> None:
        if self.cancelled:
            raise DownloadCancelled
        self.progress = (done, total)

    def wait(self) -> None:
        """Wait until the download ends, reporting its progress; an interruption cancels it."""
        report, reported = host.download_progress(), (0, 0)
        try:
            alive = True
            while alive:
                self.join(POLL_INTERVAL)
                alive = (
                    self.is_alive()
                )  # before the progress is read, so that its end is reported too
                host.raise_if_interrupted()
                if self.progress != reported:
                    reported = self.progress
                    report(*reported)
        except BaseException:
            self.cancelled = True
            raise


def fetch(source: str, folder: Path) -> Path:
    """Download the file of a Hub source into `folder`. Raises ValueError and hub.HubError."""
    target = folder / hub.parse(source).file
    earlier = Download.running.get(target)
    if earlier is not None and earlier.is_alive():  # do not download the same file twice at a time
        earlier.wait()
        if earlier.path is not None:
            return earlier.path
    download = Download.running[target] = Download(source, folder)
    download.start()
    download.wait()
    del Download.running[target]
    if isinstance(download.error, hub.HubError):
        reason = str(download.error).rstrip(".")
        raise hub.HubError(
            f"{reason}. In ComfyUI, a file at {target} is used without a download."
        ) from download.error
    if download.error is not None:
        raise download.error
    assert download.path is not None
    return download.path
