"""The processes of one run, as `accelerate launch` and torchrun start them, and what they tell each other of a film."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from torch.distributed.rendezvous import rendezvous

from ..atomic_write import name_temporary
from .paths import CommandError

_MEETING = timedelta(minutes=5)  # for all processes to start
_PAUSE = 0.1  # seconds between two looks at what the others told
_FAILED = "!"  # before the reason


class Team:
    """The processes of this run, which meet at the address that the launcher sets (MASTER_ADDR, MASTER_PORT)."""

    def __init__(self, rank: int, processes: int) -> None:
        self.rank, self.processes = rank, processes
        try:
            self._store, _, _ = next(iter(rendezvous("env://", timeout=_MEETING)))
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise CommandError(
                f"the processes of this run do not find each other: {reason}"
            ) from error

    @contextlib.contextmanager
    def share(self, number: int, folder: Path) -> Iterator[Share]:
        """Share the film of this number; the part of this process, a file in `folder`, goes at the end.

        An error, Ctrl-C included, is told to the others.
        """
        share = Share(self, number, name_temporary(folder))
        try:
            yield share
        except BaseException as error:
            reason = str(error) or f"process {self.rank} was interrupted"
            # Where process 0, which keeps what is told, has ended there is nobody to tell.
            with contextlib.suppress(RuntimeError):
                self.tell(share.key(), _FAILED + reason)
                if self.rank == 0:
                    time.sleep(3 * _PAUSE)  # so that those that wait hear it
            raise
        finally:
            share.part.unlink(missing_ok=True)

    def tell(self, key: str, text: str) -> None:
        """Tell all others a text."""
        self._store.set(key, text.encode("utf-8", "backslashreplace").decode())

    def hears(self, key: str) -> bool:
        """Return whether something was told under this key."""
        return bool(self._store.check([key]))

    def wait(self, key: str) -> str:
        """Wait for what is told under this key and return it. CommandError where it is a failure."""
        try:
            while not self.hears(key):
                time.sleep(_PAUSE)  # Ctrl-C does not end the store's own waiting
            text: str = self._store.get(key).decode()
        except RuntimeError as error:
            raise CommandError("process 0, which joins the films, has ended") from error
        if text.startswith(_FAILED):
            raise CommandError(text.removeprefix(_FAILED))
        return text


class Share:
    """One film in this process. Each process colours some shots into its `part`; process 0 joins the parts."""

    def __init__(self, team: Team, number: int, part: Path) -> None:
        self.rank, self.processes = team.rank, team.processes
        self.part = part
        self._team, self._number = team, number

    def key(self, rank: int | None = None, what: str = "part") -> str:
        """Return what a process tells its part under; process 0 tells there that the film is joined."""
        return f"{self._number}/{what}/{self.rank if rank is None else rank}"

    def hand_in(self, frames: int) -> None:
        """Give the part of so many frames to process 0, and wait until it has joined the film."""
        self._team.tell(self.key(), self.part.name if frames else "")
        self._team.wait(self.key(0))
        self._team.tell(self.key(what="left"), "")

    def gather(self, note: Callable[[str], None]) -> list[Path]:
        """Wait in process 0 for the parts of the others, which `note` gets a line of; return all parts."""
        others = range(1, self.processes)
        missing = sum(not self._team.hears(self.key(rank)) for rank in others)
        if missing:
            note(f"waits for {missing} of {self.processes} processes to colour their shots")
        names = [self._team.wait(self.key(rank)) for rank in others]
        return [self.part, *(self.part.with_name(name) for name in names if name)]

    def end(self) -> None:
        """Say in process 0 that the film is joined, and wait until the others have heard it."""
        self._team.tell(self.key(), "")
        for rank in range(1, self.processes):
            self._team.wait(self.key(rank, "left"))
