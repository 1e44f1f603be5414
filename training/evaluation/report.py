"""Format a score as Markdown, as JSON and as a page of pictures, beside the paper's numbers."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scsnet.atomic_write import open_atomic
from training.evaluation.image_metrics import HUES, aggregate
from training.evaluation.protocol import Protocol, Score, picture_name
from training.text import format_table, save_text

COLUMNS = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "psnr_l": ("PSNR of L", 2),
    "psnr_y": ("PSNR of Y", 2),
    "psnr_ab": ("PSNR of ab", 2),
    "ab_error": ("ab error", 2),
    "delta_e": ("CIEDE2000", 2),
    "chroma": ("chroma", 1),
    "m3": ("M3", 1),
    "m3_abs": ("M3 abs", 1),
    "delta_m3": ("ΔM3", 1),
    "lpips": ("LPIPS", 3),
    "fid": ("FID", 2),
    "kid": ("KID", 4),
}
COLOR_COLUMNS = {
    "explained": "explained",
    "explained_a": "of a",
    "explained_b": "of b",
    **{f"hits_{name}": name for name in HUES},
}
NAMES = {
    "auto": "SCSNet, automatic",
    "self": "SCSNet, self-reference",
    "random": "SCSNet, random reference",
    "dots": "SCSNet, dots of true colour",
}
PLAIN = ("truth", "gray + bicubic", "true colour + bicubic")
"""Rows that are not the result of a system."""
Rows = Mapping[str, Mapping[str, float]]
PAPER = """\
| paper (ImageNet-C, 16,216 photos, 128 -> 512) | PSNR | SSIM | FID | CN | parameters | V100 |
|---|---|---|---|---|---|---|
| automatic (Tables 1, 2) | 22.807 | 0.856 | 25.992 | 4.688 | 9.954 M | 33.3 FPS |
| referential (Table 1), self-reference (Table 2) | 27.694 | 0.923 | 9.632 | 5.288 | 15.358 M | 27.5 FPS |

CN is ColorNet (Zerman et al. 2019), whose weights are unpublished: `n/a` here; M3, ΔM3 and chroma instead. The paper's \
SSIM is not the standard one (27.7 dB would be about 0.74), so its two columns cannot be compared with ours.
"""


def _format_figure(value: float | None, digits: int) -> str:
    if value is None:
        return "n/a"
    return "∞" if value == float("inf") else f"{value:.{digits}f}"


def format_metrics(rows: Rows, missing: Mapping[str, str]) -> list[str]:
    """Return the lines of a table of all metrics in Markdown; missing ones are `n/a`, with the reasons below."""
    cells = [
        [NAMES.get(name, name), *(_format_figure(row.get(k), d) for k, (_, d) in COLUMNS.items())]
        for name, row in rows.items()
    ]
    lines = format_table(["", *(title for title, _ in COLUMNS.values())], cells)
    if missing:
        lines += ["", *(f"- {COLUMNS[key][0]} n/a: {reason}" for key, reason in missing.items())]
    return [*lines, ""]


def format_colors(rows: Rows) -> list[str]:
    """Return the lines of a table of the coarse colours of all systems, and their differences from gray + bicubic."""
    gray, target = rows["gray + bicubic"], rows["truth"]["chroma"]
    header = ["", "PSNR - gray's", "CIEDE2000 - gray's", "ab error / gray's", "chroma / truth's"]
    cells = [
        [
            NAMES.get(name, name),
            f"{row['psnr'] - gray['psnr']:+.2f}",
            f"{row['delta_e'] - gray['delta_e']:+.2f}",
            f"{row['ab_error'] / gray['ab_error']:.0%}" if target else "n/a",
            f"{row['chroma'] / target:.0%}" if target else "n/a",
            *(f"{row[key]:.0%}" if key in row else "n/a" for key in COLOR_COLUMNS),
        ]
        for name, row in rows.items()
        if name not in PLAIN
    ]
    return [*format_table([*header, *COLOR_COLUMNS.values()], cells), ""]


def format_markdown(
    score: Score, protocol: Protocol, facts: Mapping[str, Any], missing: Mapping[str, str]
) -> str:
    """Format the whole report as Markdown; `facts`: names of weights and device, parameters by mode."""
    degraded = ", inputs like scans of old prints" if protocol.degraded else ""
    lines = [
        f"# {facts['weights']}",
        "",
        f"{score.photos} photos, centre squares of {protocol.size} px, input {protocol.low} px bicubic, magnified by "
        f"{protocol.magnification:g}{degraded}. Figures are means over pictures as 8-bit sRGB.",
        "",
        *format_metrics(score.rows, missing),
        "Coarse colours, over 16 x 16 cells of every photo (training.evaluation.image_metrics.aggregate):",
        "",
        *format_colors(score.rows),
    ]
    if score.moved is not None:
        share = f"{score.moved:.0%} of the pairs"
        lines += [f"Random references draw a picture's mean ab towards their own in {share}.", ""]
    if score.margin_shift is not None:
        shift = f"{score.margin_shift:.2f} of their chroma"
        kinds = "Margins of 2 and 5 % (white, black, gray, paper)"
        lines += [f"{kinds} move the automatic colours inside by {shift}.", ""]
    speeds = []
    for mode, seconds in score.seconds.items():
        count = f"{facts['parameters'][mode] / 1e6:.3f} M"
        speeds.append([NAMES.get(mode, mode), count, f"{seconds:.3f}", f"{1 / seconds:.2f}"])
    lines += format_table(["mode", "parameters", "median seconds per picture", "FPS"], speeds)
    lines += [f"\nOn {facts['device']}, one picture at a time.", "", PAPER]
    if score.skipped:
        lines += ["Left out:", *(f"- {name}" for name in score.skipped)]
    return "\n".join(lines) + "\n"


def render_page(title: str, body: str, sections: Sequence[str]) -> str:
    """Return an HTML page of preformatted text and sections of pictures."""
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;background:#fff;color:#222}"
        "div{display:flex;gap:.5rem;flex-wrap:wrap}figure{margin:0}img{width:256px;height:256px;object-fit:contain;"
        "background:#eee}figcaption{color:#666;font-size:13px}h2{font-size:15px;font-weight:600;margin:1.5rem 0 .3rem}"
        "pre{overflow-x:auto;background:#f6f6f6;padding:1rem}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{style}</style><pre>{html.escape(body)}</pre>{''.join(sections)}</html>\n"
    )


def render_figure(path: Path, label: str, picture: np.ndarray) -> str:
    """Write a picture, uint8 (H, W, 3), as JPEG; return its HTML for a page in the parent of its folder."""
    with open_atomic(path) as file:
        Image.fromarray(picture).save(file, "JPEG", quality=92, subsampling=0)
    source, name = html.escape(f"{path.parent.name}/{path.name}"), html.escape(label)
    return f'<figure><img loading="lazy" src="{source}" alt="{name}"><figcaption>{name}</figcaption></figure>'


def render_section(title: str, rows: Iterable[Iterable[str]]) -> str:
    """Return the HTML of a section: a title, and rows of figures."""
    figures = "".join(f"<div>{''.join(row)}</div>" for row in rows)
    return f"<section><h2>{html.escape(title)}</h2>{figures}</section>"


class Page:
    """HTML page of pictures side by side. `add` writes pictures, `close` writes the page."""

    ORDER = ("gray + bicubic", "auto", "reference", "random", "self", "dots")

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.rows: list[str] = []

    def add(self, name: str, pictures: dict[str, np.ndarray]) -> None:
        """Add the pictures of a photo, unless the page has `limit` photos."""
        if len(self.rows) >= self.limit:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        others = [kind for kind in pictures if kind not in (*self.ORDER, *PLAIN)]
        kinds = [kind for kind in (*self.ORDER, *others, "truth") if kind in pictures]
        stem = f"{len(self.rows):03}_{picture_name(name)}"
        files = {kind: self.folder / f"{stem}_{kind.split()[0]}.jpg" for kind in kinds}
        cells = [render_figure(file, kind, pictures[kind]) for kind, file in files.items()]
        self.rows.append(render_section(Path(name).name, [cells]))

    def close(self, path: Path, title: str, body: str) -> None:
        """Write the page: the report as text, then the pictures."""
        save_text(path, render_page(title, body, self.rows))


def format_json(
    score: Score, protocol: Protocol, facts: Mapping[str, Any], missing: Mapping[str, str]
) -> str:
    """Format all metrics as JSON, also of every photo, and their deviations; infinite ones are null."""

    def select_finite(rows: Rows) -> dict[str, dict[str, float | None]]:
        return {
            name: {k: v if np.isfinite(v) else None for k, v in row.items() if k[0] != "_"}
            for name, row in rows.items()
        }

    photos: dict[str, Any] = {}
    deviations: dict[str, dict[str, float]] = {}
    for name, rows in score.photo_rows.items():
        photos[name] = select_finite({photo: aggregate([row]) for photo, row in rows.items()})
        columns = {key: [row[key] for row in rows.values()] for key in next(iter(rows.values()))}
        deviations[name] = {
            key: float(np.std(values)) if np.isfinite(values).all() else np.inf
            for key, values in columns.items()
        }
    values = asdict(score) | {
        "rows": select_finite(score.rows),
        "photo_rows": photos,
        "deviations": select_finite(deviations),
        "protocol": asdict(protocol),
        "missing": dict(missing),
    }
    return json.dumps(values | dict(facts), indent=2, allow_nan=False) + "\n"
