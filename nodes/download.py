"""Downloads in a thread of their own: a node that waits for one can be interrupted although the network is silent."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

from ..scsnet.checkpoint import hub
from . import host

LOOK = 0.05  # seconds between two looks at how far it is


class Abandoned(Exception):  # noqa: N818  not an error: the node that waited has been interrupted
    """Ends a download that nobody waits for any more."""


class Download(Thread):
    """One file on its way from the Hub into a folder."""

    running: dict[Path, Download] = {}  # noqa: RUF012  by the file that they will make
    """ComfyUI runs one node at a time: there is more than one only where an interrupted one has not ended yet."""

    def __init__(self, source: str, folder: Path) -> None:
        super().__init__(daemon=True, name=f"download {source}")  # ComfyUI may end meanwhile
        self.source, self.folder = source, folder
        self.seen = (0, 0)
        self.abandoned = False
        self.path: Path | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        """Called by the thread."""
        try:
            self.path = hub.fetch(self.source, local_dir=self.folder, progress=self._report)
        except Exception as error:  # noqa: BLE001  raised again where somebody waits for it
            self.error = error

    def _report(self, done: int, total: int) -> None:
        if self.abandoned:
            raise Abandoned
        self.seen = (done, total)

    def wait(self) -> None:
        """Until it ends. What the host raises upon an interruption abandons the download."""
        report, shown = host.download_progress(), (0, 0)
        try:
            alive = True
            while alive:
                self.join(LOOK)
                alive = self.is_alive()  # asked before the look: the end is reported too
                host.ask()
                if self.seen != shown:
                    shown = self.seen
                    report(*shown)
        except BaseException:
            self.abandoned = True
            raise


def fetch(source: str, folder: Path) -> Path:
    """The file of a Hub source in `folder`. Errors: ValueError, hub.HubError."""
    target = folder / hub.parse(source).file
    earlier = Download.running.get(target)
    if earlier is not None and earlier.is_alive():  # the same file is not fetched twice at a time
        earlier.wait()
        if earlier.path is not None:
            return earlier.path
    download = Download.running[target] = Download(source, folder)
    download.start()
    download.wait()
    del Download.running[target]
    if isinstance(download.error, hub.HubError):
        said = str(download.error).rstrip(".")
        raise hub.HubError(f"{said}. A file at {target} is used as it is.") from download.error
    if download.error is not None:
        raise download.error
    assert download.path is not None
    return download.path
