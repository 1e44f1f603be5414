"""A score as Markdown, JSON and a page of pictures side by side, the paper's numbers beside ours."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scsnet.atomic_write import open_atomic
from training.evaluation.protocol import Protocol, Score, picture_name
from training.paths import save_text

COLUMNS = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "psnr_l": ("PSNR of L", 2),
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
NAMES = {
    "auto": "SCSNet, automatic",
    "self": "SCSNet, self-reference",
    "random": "SCSNet, random reference",
}
PAPER = """\
| paper (ImageNet-C, 16,216 photos, 128 -> 512) | PSNR | SSIM | FID | CN | parameters | V100 |
|---|---|---|---|---|---|---|
| automatic (Tables 1, 2) | 22.807 | 0.856 | 25.992 | 4.688 | 9.954 M | 33.3 FPS |
| referential (Table 1), self-reference (Table 2) | 27.694 | 0.923 | 9.632 | 5.288 | 15.358 M | 27.5 FPS |

CN is ColorNet (Zerman et al. 2019), whose weights are unpublished: `n/a` here; M3, ΔM3 and chroma instead. The paper's \
SSIM is not the standard one (27.7 dB would be about 0.74), so its two columns cannot be compared with ours.
"""


def table(rows: Mapping[str, Mapping[str, float]], missing: Mapping[str, str]) -> str:
    """Markdown; a figure that is not there is `n/a`."""
    header = [title for title, _ in COLUMNS.values()]
    lines = ["| | " + " | ".join(header) + " |", "|---" * (len(header) + 1) + "|"]
    for name, row in rows.items():
        cells = []
        for key, (_, digits) in COLUMNS.items():
            value = row.get(key)
            shown = (
                "n/a"
                if value is None
                else ("∞" if value == float("inf") else f"{value:.{digits}f}")
            )
            cells.append(shown)
        lines.append(f"| {NAMES.get(name, name)} | " + " | ".join(cells) + " |")
    notes = [f"- {COLUMNS[key][0]} n/a: {reason}" for key, reason in missing.items()]
    return "\n".join(lines) + ("\n\n" + "\n".join(notes) if notes else "") + "\n"


def format_markdown(
    score: Score, protocol: Protocol, facts: Mapping[str, Any], missing: Mapping[str, str]
) -> str:
    """The whole report."""
    low, size = protocol.low, protocol.size
    lines = [
        f"# {facts['weights']}",
        "",
        f"{score.photos} photos, centre squares of {size} px, input {low} px bicubic, magnified by "
        f"{protocol.magnification:g}{', inputs like scans of old prints' if protocol.degraded else ''}. "
        "Figures are means over pictures as 8-bit sRGB.",
        "",
        table(score.rows, missing),
    ]
    if score.moved is not None:
        lines += [
            f"Random references draw a picture's mean ab towards their own in {score.moved:.0%} of the pairs.",
            "",
        ]
    lines += ["| mode | parameters | seconds per picture | FPS |", "|---|---|---|---|"]
    for mode, seconds in score.seconds.items():
        count = facts["parameters"][mode] / 1e6
        lines.append(
            f"| {NAMES.get(mode, mode)} | {count:.3f} M | {seconds:.3f} | {1 / seconds:.2f} |"
        )
    lines += [f"\nOn {facts['device']}, one picture at a time.", "", PAPER]
    if score.skipped:
        lines += [
            f"{len(score.skipped)} photos were left out:",
            *(f"- {name}" for name in score.skipped),
        ]
    return "\n".join(lines) + "\n"


def render_page(title: str, body: str, sections: Sequence[str]) -> str:
    """A page of HTML: a text as it is, then sections of pictures."""
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
    """Write a picture (H, W, 3) uint8 as JPEG; its part of a page that lies beside the picture's folder."""
    with open_atomic(path) as file:
        Image.fromarray(picture).save(file, "JPEG", quality=92, subsampling=0)
    source, name = html.escape(f"{path.parent.name}/{path.name}"), html.escape(label)
    return f'<figure><img loading="lazy" src="{source}" alt="{name}"><figcaption>{name}</figcaption></figure>'


class Page:
    """Pictures side by side, written as they come; `close` writes the page."""

    ORDER = ("gray + bicubic", "auto", "reference", "random", "self", "truth")

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.rows: list[str] = []

    def __call__(self, name: str, pictures: dict[str, np.ndarray]) -> None:
        """Keep one photo's pictures, while there are fewer than `limit`."""
        if len(self.rows) >= self.limit:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        cells = []
        for kind in self.ORDER:
            if kind not in pictures:
                continue
            file = self.folder / f"{len(self.rows):03}_{picture_name(name)}_{kind.split()[0]}.jpg"
            cells.append(render_figure(file, kind, pictures[kind]))
        self.rows.append(
            f"<section><h2>{html.escape(Path(name).name)}</h2><div>{''.join(cells)}</div></section>"
        )

    def close(self, path: Path, title: str, body: str) -> None:
        """Write the page: the report as text, then the pictures."""
        save_text(path, render_page(title, body, self.rows))


def format_json(
    score: Score, protocol: Protocol, facts: Mapping[str, Any], missing: Mapping[str, str]
) -> str:
    """Everything, for programs; a figure without an error is null."""
    rows = {
        n: {k: v if np.isfinite(v) else None for k, v in row.items()}
        for n, row in score.rows.items()
    }
    values = asdict(score) | {"rows": rows, "protocol": asdict(protocol), "missing": dict(missing)}
    return json.dumps(values | dict(facts), indent=2, allow_nan=False) + "\n"
