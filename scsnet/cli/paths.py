"""Which files are meant, and where each result goes. Decided and checked before any work starts. No torch here."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..pictures.formats import FORMATS, PictureError, output_format

MARK = "-scsnet"


class CommandError(Exception):
    """A mistake of the user's: one line that says what and where."""


@dataclass(frozen=True)
class Task:
    """One picture or film to read and the file that its result goes to."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Kind:
    """What sets pictures and films apart in a plan."""

    noun: str
    readable: frozenset[str]
    """Endings of what is taken from a folder."""
    written: Container[str]
    """Endings of results."""
    name_result: Callable[[Path, str], str]
    """An input and a mark behind its name -> the name of its result."""
    check_target: Callable[[Path, bool], None]
    """Raises CommandError where a result cannot be written; the flag is --force."""


@dataclass(frozen=True)
class Found:
    """An input, and its place below the folder it was found in."""

    path: Path
    below: Path
    in_folder: bool


def plan(
    inputs: Iterable[str],
    output: str | None,
    *,
    kind: Kind,
    recursive: bool,
    references: Iterable[Path],
    force: bool,
    notes: list[str],
) -> tuple[list[Task], bool]:
    """Return tasks in order, and whether this is a run over several inputs (one bad file then stops nothing).

    Folders that cannot be read are added to `notes`. CommandError where an input is missing, two results would be one file, a
    result would overwrite an input, or the output is not what the inputs need.
    """
    found = _without_repeats(_expand(inputs, kind, recursive, output, notes))
    several = len(found) > 1 or found[0].in_folder
    folder = _output_folder(output, kind, found, several)
    tasks = []
    for item in found:
        if output is None:
            target = item.path.with_name(kind.name_result(item.path, MARK))
        elif folder is None:
            target = Path(output)
        else:
            target = folder / item.below.with_name(kind.name_result(item.path, ""))
        tasks.append(Task(item.path, target))
    _check_collisions(tasks, references)
    if not several:
        kind.check_target(tasks[0].target, force)
    return tasks, several


def get_rank() -> tuple[int, int]:
    """Return the number of this process, from 0, and how many there are, which `accelerate launch` and torchrun set."""
    return int(os.getenv("RANK", "0")), int(os.getenv("WORLD_SIZE", "1"))


@contextlib.contextmanager
def explain_os_error() -> Iterator[None]:
    """Turn what the disk refuses while we look around (no permission, a name too long) into a CommandError."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror or error}") from error


def result_name(path: Path, mark: str = "", ending: str | None = None) -> str:
    """Return a result's file name: the input's, in the input's format where that is written, else PNG."""
    suffix = path.suffix.lower()
    known = suffix in FORMATS or suffix in readable_endings()
    stem = path.stem if known else path.name  # "scan.2019" has no ending
    return stem + mark + (ending or (path.suffix if suffix in FORMATS else ".png"))


def check_target(path: Path, force: bool) -> None:
    """Raise CommandError unless this file can be written: its ending, its folder, what is there already."""
    try:
        output_format(path)
    except PictureError as error:
        raise CommandError(str(error)) from error
    check_place(path, force)


def check_place(path: Path, force: bool) -> None:
    """CommandError unless a file can be written here: its folder, what is there already."""
    if path.is_dir():
        raise CommandError(f"{path}: is a folder, a file is needed here")
    if path.exists() and not force:
        raise CommandError(f"{path}: exists already; --force overwrites it")
    folder = path.parent
    while not os.path.lexists(folder) and folder != folder.parent:  # missing ones will be made
        folder = folder.parent
    if not folder.is_dir():
        raise CommandError(f"{path}: {folder} is not a folder")
    if not os.access(folder, os.W_OK):
        raise CommandError(f"{path}: the folder {folder} is not writable")


def create_folder(target: Path) -> Path:
    """Return the target, its folder made where it is missing: only now that there is a result."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{target.parent}: cannot be made: {error.strerror or error}") from error
    return target


def _expand(
    inputs: Iterable[str], kind: Kind, recursive: bool, output: str | None, notes: list[str]
) -> list[Found]:
    found: list[Found] = []
    for text in inputs:
        if not text:
            raise CommandError("an input is empty")
        paths = [Path(text)]
        # is_dir names what is wrong with a path.
        if not (paths[0].is_dir() or os.path.lexists(text)):
            if not glob.has_magic(text):
                raise CommandError(f"{text}: No such file or directory")
            paths = [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207
            if not paths:
                raise CommandError(f"{text}: no file has such a name")
        for path in paths:
            if path.is_dir():
                found += _find_below(path, kind, recursive, output, notes)
            else:
                found.append(Found(path, Path(path.name), False))
    return found


def readable_endings() -> frozenset[str]:
    """Return the endings of the formats that this Pillow reads, without those it only recognises."""
    Image.init()
    only_recognised = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS", "PDF"}
    readable = set(Image.OPEN) - only_recognised
    return frozenset(
        ending for ending, kind in Image.registered_extensions().items() if kind in readable
    )


def _find_below(
    folder: Path, kind: Kind, recursive: bool, output: str | None, notes: list[str]
) -> list[Found]:
    """List the files of a kind in a folder by name, without hidden ones, results of earlier runs and the output folder."""
    own = None if output is None or _same(Path(output), folder) else Path(os.path.realpath(output))
    found = []
    for path in sorted(_walk(folder, notes) if recursive else folder.iterdir()):
        below = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in below.parts)
        earlier = output is None and path.stem.endswith(MARK)
        inside_output = own is not None and own in Path(os.path.realpath(path)).parents
        if (
            path.suffix.lower() in kind.readable
            and path.is_file()
            and not (hidden or earlier or inside_output)
        ):
            found.append(Found(path, below, True))
    if not found:
        hint = "" if recursive else "; --recursive looks into the folders below it, too"
        left_out = "".join(f"; {note}" for note in notes)
        raise CommandError(f"{folder}: there is no {kind.noun} in this folder{hint}{left_out}")
    return found


def _walk(folder: Path, notes: list[str]) -> Iterator[Path]:
    """Yield the files below a folder; links to folders, and folders that cannot be read, are left out and noted."""

    def note(error: OSError) -> None:
        if error.filename == str(folder):
            raise error
        notes.append(f"{error.filename}: is left out: {error.strerror}")

    for parent, folders, files in os.walk(folder, onerror=note):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        notes += [f"{Path(parent, name)}: is left out: a link to a folder" for name in links]
        yield from (Path(parent, name) for name in files)


def _without_repeats(found: list[Found]) -> list[Found]:
    return list({_key(item.path): item for item in reversed(found)}.values())[::-1]


def _output_folder(
    output: str | None, kind: Kind, found: list[Found], several: bool
) -> Path | None:
    """Return the folder that -o names, or None where it names a file or there is no -o."""
    if output is None:
        return None
    folder = Path(output)
    if folder.is_dir() or output.endswith(("/", os.sep)):
        return folder
    if not several:
        return None
    if folder.exists():
        raise CommandError(
            f"{output}: is a file; the results of several {kind.noun}s need a folder"
        )
    if folder.suffix.lower() in kind.written:
        raise CommandError(
            f"{output}: looks like a file; the results of {len(found)} {kind.noun}s from a folder or pattern need a folder"
        )
    return folder


def check_not_read(target: Path, read: Iterable[Path]) -> None:
    """Raise CommandError where a result would overwrite a picture that it is made from."""
    for path in read:
        if _key(path) == _key(target):
            raise CommandError(f"{target}: the result would overwrite the input {path}")


def _check_collisions(tasks: list[Task], references: Iterable[Path]) -> None:
    read = {_key(path): path for path in [*(task.source for task in tasks), *references]}
    targets: dict[str, Task] = {}
    for task in tasks:
        key = _key(task.target)
        if key in read:
            check_not_read(task.target, [read[key]])
        if key in targets:
            raise CommandError(
                f"{task.target}: would be the result of both {targets[key].source} and {task.source}"
            )
        targets[key] = task


def _key(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def _same(one: Path, other: Path) -> bool:
    return _key(one) == _key(other)
