"""Build a set of photos by the paper's rule: `python training/prepare.py --data PHOTOS --output FOLDER`.

ImageNet-C is ImageNet without small files and without photos of low colour variation (Sec. 4.1). Nothing
of the source is changed: what stays is named in kept.txt, which train.py takes as --data, or copied with
--resize, or packed into shards with --shards. report.json and report.md say what went and why.
"""

from __future__ import annotations

import hashlib
import io
import json
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

from scsnet.color import rgb_to_lab
from scsnet.wholefile import whole_file
from training.files import save_text
from training.options import Parser, filled
from training.photos import BadPhotoError, Entry, data, decoded, find

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
        content = data(entry)
        photo = decoded(entry.name, content)
    except BadPhotoError as error:
        return Verdict("unreadable", str(error), 0, 0, None, "")
    thumbnail = np.asarray(
        Image.fromarray(photo).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    )
    kilobytes, colours = len(content) / 1024, variation(thumbnail)
    reason, detail = "", ""
    if kilobytes < rule.kilobytes:
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
    with ProcessPoolExecutor(max(1, rule.workers)) as pool:
        verdicts = pool.map(partial(judge, rule=rule), entries, chunksize=16)
        for entry, verdict in zip(entries, verdicts, strict=True):
            if not verdict.reason and verdict.digest in seen:
                verdict = verdict._replace(
                    reason="the same file", detail=f"as {seen[verdict.digest]}"
                )
            elif verdict.digest:
                seen.setdefault(verdict.digest, entry.name)
            yield verdict


def smaller(content: bytes, name: str, rule: Rule) -> bytes:
    """A photo as JPEG with its short side at most `resize`."""
    photo = Image.fromarray(decoded(name, content))
    scale = rule.resize / min(photo.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in photo.size)
        photo = photo.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=rule.quality, subsampling=0)
    return buffer.getvalue()


def files(kept: Sequence[Entry], rule: Rule) -> Iterator[tuple[str, bytes]]:
    """Numbered names and contents of what is copied."""
    for number, entry in enumerate(kept):
        content, suffix = data(entry), Path(entry.name).suffix.lower()
        if rule.resize:
            content, suffix = smaller(content, entry.name, rule), ".jpg"
        yield f"{number:08}{suffix}", content


def write_shards(folder: Path, contents: Iterable[tuple[str, bytes]], per_shard: int) -> int:
    """Numbered tars, each whole or not there; how many."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    batch: list[tuple[str, bytes]] = []

    def flush() -> None:
        nonlocal count
        path = folder / f"photos-{count:06}.tar"
        with whole_file(path) as file, tarfile.open(fileobj=file, mode="w") as shard:
            for name, content in batch:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
        count += 1
        batch.clear()

    for item in contents:
        batch.append(item)
        if len(batch) == per_shard:
            flush()
    if batch:
        flush()
    return count


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
    sheet.save(path)


def prepare(rule: Rule) -> Counter[str]:
    """Judge, report, copy; how many went for which reason ("" stays). Errors: ValueError, OSError."""
    entries = find(rule.data)
    output = Path(rule.output)
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
    contact_sheet(output / "contact_sheet.png", rows)
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
    if all(entry.size < 0 for entry in kept):
        save_text(output / "kept.txt", "".join(f"{Path(entry.path).resolve()}\n" for entry in kept))
    if rule.shards:
        count = write_shards(output / "shards", files(kept, rule), rule.shards)
        print(f"{count} shards in {output / 'shards'}")
    elif rule.resize:
        folder = output / "photos"
        folder.mkdir(exist_ok=True)
        for name, content in files(kept, rule):
            (folder / name).write_bytes(content)
    return counts


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> report."""
    parser = Parser(prog="prepare.py", description=__doc__)
    try:
        rule = filled(parser, Rule, arguments)
        if not rule.data or not rule.output:
            parser.error("--data and --output are needed")
        for reason, count in sorted(prepare(rule).items()):
            print(f"{count:8} {reason or 'kept'}")
        print(f"report: {rule.output}/report.md, contact_sheet.png")
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
