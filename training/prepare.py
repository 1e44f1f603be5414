"""Select training photos by the paper's rule: `python training/prepare.py --data PHOTOS --output FOLDER`.

ImageNet-C is ImageNet without small files and without photos of low colour variation (Sec. 4.1). The source stays
unchanged: kept.txt lists the selected photos, for train.py --data; --resize copies them, --shards packs them into
shards. report.json and report.md list the rejected photos and the reasons.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import numpy as np
import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

from scsnet.atomic_write import open_atomic
from scsnet.color import rgb_to_lab
from training.config.cli import Parser, parse_options
from training.config.stage import check_ranges
from training.data import photos
from training.data.photos import CONTACT_SHEET, BadPhotoError, Entry
from training.text import format_table, save_text

File = tuple[str, bytes]
"""File name and content."""
THUMBNAIL = 64  # side in pixels; colour variation is measured on thumbnails
COLUMNS = 16  # of the contact sheet


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Options: criteria of the selection, and the copies of the selected photos."""

    data: tuple[str, ...]
    """Photos: folders, lists (.txt), shards (.tar)."""
    output: str
    """Folder for the report, copies and shards."""
    kilobytes: float = 80.0
    """Smallest file size that is kept."""
    variation: float = 8.0
    """Smallest colour variation that is kept: standard deviation of a and b over the photo, in CIE units."""
    side: int = 128
    """Smallest short side that is kept, in pixels."""
    resize: int = 0
    """Short side of JPEG copies. 0: no copies, and unchanged files in shards."""
    quality: int = 92
    """JPEG quality of the copies."""
    shards: int = 0
    """Number of photos in a shard (.tar, WebDataset's layout). 0: no shards."""
    workers: int = 2
    """Processes that read photos."""

    def __post_init__(self) -> None:
        check_ranges(self, "kilobytes variation side resize shards", 0)
        check_ranges(self, "quality", 1, 100)
        check_ranges(self, "workers", 1)


class Verdict(NamedTuple):
    """Result for one photo."""

    reason: str
    """Why it is rejected; empty: it is kept."""
    detail: str = ""
    thumbnail: np.ndarray | None = None
    """uint8 (64, 64, 3); None: the photo cannot be read."""
    digest: str = ""
    """SHA-256 of the file."""


def measure_variation(rgb: np.ndarray) -> float:
    """Compute the standard deviation of a and b over sRGB uint8 (H, W, 3), in CIE units: 0 for gray and for a single tint."""
    lab = rgb_to_lab(torch.from_numpy(rgb.copy()).permute(2, 0, 1).float() / 255)
    return float(lab[1:].var(dim=(1, 2)).sum().sqrt())


def judge(entry: Entry, rule: Rule) -> Verdict:
    """Read a photo and apply the criteria."""
    try:
        content = photos.read_bytes(entry)
        photo = photos.decode_photo(entry.name, content)
    except BadPhotoError as error:
        return Verdict("unreadable", str(error))
    small = Image.fromarray(photo).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    thumbnail = np.asarray(small)
    kilobytes, variation = len(content) / 1024, measure_variation(thumbnail)
    reason, detail = "", ""
    if "\n" in entry.path:  # kept.txt has a line for each
        reason = "line break in its name"
    elif kilobytes < rule.kilobytes:
        reason, detail = "small file", f"{kilobytes:.0f} KB"
    elif min(photo.shape[:2]) < rule.side:
        reason, detail = "few pixels", f"{photo.shape[1]} x {photo.shape[0]}"
    elif variation < rule.variation:
        reason, detail = "low colour variation", f"{variation:.1f}"
    return Verdict(reason, detail, thumbnail, hashlib.sha256(content).hexdigest())


def judge_all(entries: Sequence[Entry], rule: Rule) -> Iterator[Verdict]:
    """Yield the verdicts in order; a file that equals an earlier one is rejected."""
    seen: dict[str, str] = {}
    with ProcessPoolExecutor(rule.workers) as pool:
        verdicts = pool.map(partial(judge, rule=rule), entries, chunksize=16)
        for entry, verdict in zip(entries, verdicts, strict=True):
            if not verdict.reason and verdict.digest in seen:
                detail = f"as {seen[verdict.digest]}"
                verdict = verdict._replace(reason="the same file", detail=detail)
            elif verdict.digest:
                seen.setdefault(verdict.digest, entry.name)
            yield verdict


def write_contact_sheet(path: Path, rows: Sequence[tuple[str, Sequence[np.ndarray]]]) -> None:
    """Write a PNG with a title and thumbnails, uint8 (64, 64, 3), in each row."""
    label = 14
    sheet = Image.new("RGB", (COLUMNS * THUMBNAIL, len(rows) * (THUMBNAIL + label)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (title, thumbnails) in enumerate(rows):
        top = row * (THUMBNAIL + label)
        draw.text((2, top + 1), title, fill="black")
        for column, thumbnail in enumerate(thumbnails):
            sheet.paste(Image.fromarray(thumbnail), (column * THUMBNAIL, top + label))
    with open_atomic(path) as file:
        sheet.save(file, "PNG")


def shrink_to_jpeg(content: bytes, name: str, side: int, quality: int) -> bytes:
    """Encode a photo as JPEG, its short side reduced to `side`. Raises BadPhotoError."""
    photo = Image.fromarray(photos.decode_photo(name, content))
    scale = side / min(photo.size)
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in photo.size)
        photo = photo.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def read_copies(entries: Sequence[Entry], side: int, quality: int) -> Iterator[File]:
    """Yield the photos as numbered files: unchanged, or with `side` > 0 as reduced JPEGs. Raises BadPhotoError."""
    for number, entry in enumerate(entries):
        content, suffix = photos.read_bytes(entry), Path(entry.name).suffix.lower()
        if side:
            content, suffix = shrink_to_jpeg(content, entry.name, side, quality), ".jpg"
        yield f"{number:08}{suffix}", content


def write_shards(folder: Path, contents: Iterable[File], per_shard: int) -> int:
    """Write numbered tars in the layout of WebDataset, each whole or not at all; return their number."""
    folder.mkdir(parents=True, exist_ok=True)
    rest = iter(contents)
    for count in itertools.count():
        batch = list(itertools.islice(rest, per_shard))
        if not batch:
            break
        path = folder / f"photos-{count:06}.tar"
        with open_atomic(path) as file, tarfile.open(fileobj=file, mode="w") as shard:
            for name, content in batch:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
    return count


def check_output(output: Path, entries: Sequence[Entry], rule: Rule) -> None:
    """Raise ValueError if the output could overwrite a photo or mix with the output of an earlier call."""
    folder = os.path.realpath(output) + os.sep
    lists = [source for source in rule.data if Path(source).expanduser().is_file()]
    for path in dict.fromkeys([*lists, *(entry.path for entry in entries)]):
        if os.path.realpath(path).startswith(folder):
            problem = f"{path} belongs to --data and lies in {output}"
            raise ValueError(f"{problem}: name an --output of its own")
    for name, wanted in (("shards", rule.shards), ("photos", rule.resize and not rule.shards)):
        if wanted and (output / name).is_dir() and any((output / name).iterdir()):
            problem = f"{output / name} has files in it already"
            raise ValueError(f"{problem}: remove them, or name another --output")


def prepare(rule: Rule) -> Counter[str]:
    """Select, report and copy photos; return the number of photos by reason ("": kept). Raises ValueError and OSError."""
    entries = photos.find_photos(rule.data)
    output = Path(rule.output).expanduser()
    check_output(output, entries, rule)
    output.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    kept: list[Entry] = []
    rejected: list[dict[str, str]] = []
    thumbnails: dict[str, list[np.ndarray]] = {}  # by reason
    verdicts = tqdm(judge_all(entries, rule), total=len(entries), unit="photo", disable=None)
    for entry, (reason, detail, thumbnail, _) in zip(entries, verdicts, strict=True):
        counts[reason] += 1
        if reason:
            rejected.append({"photo": entry.name, "reason": reason, "detail": detail})
        else:
            kept.append(entry)
        row = thumbnails.setdefault(reason, [])
        if thumbnail is not None and len(row) < COLUMNS:
            row.append(thumbnail)
    rows = [(f"{key or 'kept'}: {counts[key]}", row) for key, row in sorted(thumbnails.items())]
    write_contact_sheet(output / CONTACT_SHEET, rows)
    gone = {reason: count for reason, count in sorted(counts.items()) if reason}
    report = {"photos": len(entries), "kept": len(kept), "gone": gone, "list": rejected}
    save_text(output / "report.json", json.dumps(report, indent=2) + "\n")
    lines = [f"# {len(kept)} of {len(entries)} photos kept", ""]
    lines += [*format_table(["left out for", "photos"], gone.items()), ""]
    lines += [f"- {row['photo']}: {row['reason']} {row['detail']}" for row in rejected]
    save_text(output / "report.md", "\n".join(lines) + "\n")
    listing = output / "kept.txt"
    if all(entry.size < 0 for entry in kept):
        save_text(listing, "".join(f"{Path(entry.path).resolve()}\n" for entry in kept))
    else:  # photos in shards have no path of their own
        listing.unlink(missing_ok=True)
    copies = read_copies(kept, rule.resize, rule.quality)
    if rule.shards:
        count = write_shards(output / "shards", copies, rule.shards)
        print(f"{count} shards in {output / 'shards'}")
    elif rule.resize:
        (output / "photos").mkdir(exist_ok=True)
        for name, content in copies:
            with open_atomic(output / "photos" / name) as file:
                file.write(content)
        print(f"{len(kept)} copies in {output / 'photos'}")
    return counts


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and select photos."""
    parser = Parser(prog="prepare.py", description=__doc__)
    with parser.exit_on_errors():
        rule = parse_options(parser, Rule, arguments)
        counts = prepare(rule)
        for reason, count in sorted(counts.items()):
            print(f"{count:8} {reason or 'kept'}")
        if not counts[""]:
            print("none is kept: --kilobytes, --variation and --side reject them")
        print(f"report: {rule.output}/report.md, {CONTACT_SHEET}")


if __name__ == "__main__":
    main()
