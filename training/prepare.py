"""Build a set of photos by the paper's rule: `python training/prepare.py --data PHOTOS --output FOLDER`.

ImageNet-C is ImageNet without small files and without photos of low colour variation (Sec. 4.1). Nothing
of the source is changed: what stays is named in kept.txt, which train.py takes as --data, or copied with
--resize, or packed into shards with --shards. report.json and report.md say what went and why.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
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
from training.config.stage import check_at_least
from training.data.photos import (
    CONTACT_SHEET,
    BadPhotoError,
    Entry,
    decode_photo,
    find_photos,
    read_bytes,
)
from training.data.shards import numbered, write_copies, write_shards
from training.paths import save_text

THUMBNAIL = 64  # pixels that colours are measured on
COLUMNS = 16  # of the contact sheet


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What stays, and what is made of it."""

    data: tuple[str, ...] = ()
    """Photos: folders, lists (.txt), shards (.tar)."""
    output: str = ""
    """Folder for the report and what is made."""
    kilobytes: float = 80.0
    """Files below this are left out."""
    variation: float = 8.0
    """Photos whose colours vary less are left out: deviation of a and b over the photo, in CIE units."""
    side: int = 128
    """Photos with a shorter side below this are left out."""
    resize: int = 0
    """Copies with the short side brought down to this, JPEG. 0: no copies (or as they are, in shards)."""
    quality: int = 92
    """Of those JPEG files."""
    shards: int = 0
    """Photos per shard (.tar, WebDataset's layout). 0: no shards."""
    workers: int = 2
    """Processes that read."""

    def __post_init__(self) -> None:
        for name in ("kilobytes", "variation", "side", "resize", "shards"):
            check_at_least(self, name, 0)
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be between 1 and 100, got {self.quality}")
        check_at_least(self, "workers", 1)


class Verdict(NamedTuple):
    """One photo: why it went ("" if it stays), its figures, a thumbnail and a fingerprint."""

    reason: str
    detail: str
    kilobytes: float
    variation: float
    thumbnail: np.ndarray | None
    digest: str


def variation(rgb: np.ndarray) -> float:
    """Deviation of a and b over a picture (H, W, 3): 0 for gray and for one tint alone."""
    lab = rgb_to_lab(torch.from_numpy(rgb.copy()).permute(2, 0, 1).float() / 255)
    return float(lab[1:].var(dim=(1, 2)).sum().sqrt())


def judge(entry: Entry, rule: Rule) -> Verdict:
    """Read a photo and apply the rule."""
    try:
        content = read_bytes(entry)
        photo = decode_photo(entry.name, content)
    except BadPhotoError as error:
        return Verdict("unreadable", str(error), 0, 0, None, "")
    thumbnail = np.asarray(
        Image.fromarray(photo).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    )
    kilobytes, colours = len(content) / 1024, variation(thumbnail)
    reason, detail = "", ""
    if "\n" in entry.path:  # kept.txt has a line for each
        reason = "line break in its name"
    elif kilobytes < rule.kilobytes:
        reason, detail = "small file", f"{kilobytes:.0f} KB"
    elif min(photo.shape[:2]) < rule.side:
        reason, detail = "few pixels", f"{photo.shape[1]} x {photo.shape[0]}"
    elif colours < rule.variation:
        reason, detail = "low colour variation", f"{colours:.1f}"
    return Verdict(
        reason, detail, kilobytes, colours, thumbnail, hashlib.sha256(content).hexdigest()
    )


def judged(entries: Sequence[Entry], rule: Rule) -> Iterator[Verdict]:
    """Verdicts in order; a second copy of the same file goes."""
    seen: dict[str, str] = {}
    with ProcessPoolExecutor(rule.workers) as pool:
        verdicts = pool.map(partial(judge, rule=rule), entries, chunksize=16)
        for entry, verdict in zip(entries, verdicts, strict=True):
            if not verdict.reason and verdict.digest in seen:
                verdict = verdict._replace(
                    reason="the same file", detail=f"as {seen[verdict.digest]}"
                )
            elif verdict.digest:
                seen.setdefault(verdict.digest, entry.name)
            yield verdict


def contact_sheet(path: Path, rows: Sequence[tuple[str, Sequence[np.ndarray]]]) -> None:
    """One row of thumbnails per reason."""
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


def check_output(output: Path, entries: Sequence[Entry], rule: Rule) -> None:
    """Errors: ValueError where something would be overwritten, or mixed with what an earlier call made."""
    folder = os.path.realpath(output) + os.sep
    lists = [source for source in rule.data if Path(source).expanduser().is_file()]
    for path in dict.fromkeys([*lists, *(entry.path for entry in entries)]):
        if os.path.realpath(path).startswith(folder):
            raise ValueError(
                f"{path} belongs to --data and lies in {output}: name an --output of its own"
            )
    for name, wanted in (("shards", rule.shards), ("photos", rule.resize and not rule.shards)):
        if wanted and (output / name).is_dir() and any((output / name).iterdir()):
            raise ValueError(
                f"{output / name} has files in it already: remove them, or name another --output"
            )


def prepare(rule: Rule) -> Counter[str]:
    """Judge, report, copy; how many went for which reason ("" stays). Errors: ValueError, OSError."""
    entries = find_photos(rule.data)
    output = Path(rule.output).expanduser()
    check_output(output, entries, rule)
    output.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    kept: list[Entry] = []
    gone: list[dict[str, str]] = []
    shown: dict[str, list[np.ndarray]] = {}  # a row of the sheet each
    verdicts = tqdm(judged(entries, rule), total=len(entries), unit="photo", disable=None)
    for entry, verdict in zip(entries, verdicts, strict=True):
        counts[verdict.reason] += 1
        if verdict.reason:
            gone.append({"photo": entry.name, "reason": verdict.reason, "detail": verdict.detail})
        else:
            kept.append(entry)
        row = shown.setdefault(verdict.reason, [])
        if verdict.thumbnail is not None and len(row) < COLUMNS:
            row.append(verdict.thumbnail)
    rows = [(f"{reason or 'kept'}: {counts[reason]}", row) for reason, row in sorted(shown.items())]
    contact_sheet(output / CONTACT_SHEET, rows)
    summary = {
        "photos": len(entries),
        "kept": len(kept),
        "gone": dict(counts - Counter({"": len(kept)})),
    }
    save_text(output / "report.json", json.dumps(summary | {"list": gone}, indent=2) + "\n")
    lines = [
        f"# {len(kept)} of {len(entries)} photos kept",
        "",
        "| left out for | photos |",
        "|---|---|",
    ]
    lines += [f"| {reason} | {count} |" for reason, count in sorted(counts.items()) if reason]
    lines += ["", *(f"- {row['photo']}: {row['reason']} {row['detail']}" for row in gone)]
    save_text(output / "report.md", "\n".join(lines) + "\n")
    listing = output / "kept.txt"
    if all(entry.size < 0 for entry in kept):
        save_text(listing, "".join(f"{Path(entry.path).resolve()}\n" for entry in kept))
    else:  # parts of shards have no path of their own
        listing.unlink(missing_ok=True)
    copies = numbered(kept, rule.resize, rule.quality)
    if rule.shards:
        count = write_shards(output / "shards", copies, rule.shards)
        print(f"{count} shards in {output / 'shards'}")
    elif rule.resize:
        write_copies(output / "photos", copies)
        print(f"{len(kept)} copies in {output / 'photos'}")
    return counts


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> report."""
    parser = Parser(prog="prepare.py", description=__doc__)
    with parser.exit_on_errors():
        rule = parse_options(parser, Rule, arguments)
        if not rule.data or not rule.output:
            parser.error("--data and --output are needed")
        counts = prepare(rule)
        for reason, count in sorted(counts.items()):
            print(f"{count:8} {reason or 'kept'}")
        if not counts[""]:
            print("none is kept: --kilobytes, --variation and --side say what goes")
        print(f"report: {rule.output}/report.md, {CONTACT_SHEET}")


if __name__ == "__main__":
    main()
