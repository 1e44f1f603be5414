"""Human study (Table 3): `python training/study.py Ours=FOLDER Other=FOLDER ... --output study/` makes a page of pairs.

Each pair, a picture of the first system and the same one of another system, is shown for a second; people choose the
more authentic one. The folder `study/` needs no server. The table: `python training/study.py --summary answers*.json
--output study/`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import numpy as np

from training.config.cli import Parser, add_fields, select_given
from training.config.stage import check_ranges
from training.data.photos import Entry, find_photos, select_evenly
from training.evaluation.protocol import picture_name
from training.text import format_table, save_text

PAGE = Path(__file__).parent / "evaluation" / "study.html"
PAIRS = "pairs.json"  # which system made which picture


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the study."""

    output: str
    """Folder of the study: index.html, pictures, pairs.json."""
    summary: tuple[str, ...] = ()
    """Files of answers that people have saved: print the table of the study in --output."""
    pairs: int = 0
    """Pairs with each other system, evenly spread. 0: all."""
    seconds: float = 1.0
    """Seconds for which a pair is shown."""

    def __post_init__(self) -> None:
        check_ranges(self, "pairs", 0)
        check_ranges(self, "seconds", 0.1, 60)


def find_results(results: Sequence[str]) -> dict[str, dict[str, Entry]]:
    """Find the pictures of each system: name of the system -> name of the picture -> picture.

    results: each NAME=FOLDER, or FOLDER if it has the name of the system. Raises ValueError for fewer than two systems and
    for two of one name, and the errors of `find_photos`.
    """
    if len(results) < 2:
        raise ValueError(f"expected at least two folders of results, got {len(results)}")
    systems: dict[str, dict[str, Entry]] = {}
    for result in results:
        name, _, folder = result.rpartition("=")
        name = name or Path(folder).name
        if name in systems:
            raise ValueError(f"expected systems of different names, got {name!r} twice")
        systems[name] = {picture_name(entry.name): entry for entry in find_photos([folder])}
    return systems


def make_study(results: Sequence[str], options: Options) -> int:
    """Write the page, the pictures and a list of which system made which; return the number of pairs.

    The first system is compared with all others. Raises ValueError if two have no picture of the same name.
    """
    systems = find_results(results)
    ours, *others = systems
    pairs: list[dict[str, Any]] = []
    for other in others:
        shared = sorted(systems[ours].keys() & systems[other].keys())
        if not shared:
            raise ValueError(f"{ours} and {other} have no pictures of the same name")
        chosen = select_evenly(shared, options.pairs)
        pairs += [{"systems": [ours, other], "picture": name} for name in chosen]
    text = json.dumps(pairs, indent=1)
    identity = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = Path(options.output)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    shown = []
    # Names of files must not reveal the system: numbers are drawn here, sides in the browser.
    numbers = np.random.default_rng(int(identity, 16)).permutation(2 * len(pairs))
    for index, pair in enumerate(pairs):
        files = []
        for side, system in enumerate(pair["systems"]):
            source = Path(systems[system][pair["picture"]].path)
            target = f"pictures/{numbers[2 * index + side]:05}{source.suffix.lower()}"
            shutil.copyfile(source, folder / target)
            files.append(target)
        shown.append({"files": files})
    page = {"id": identity, "seconds": options.seconds, "pairs": shown}
    html = PAGE.read_text(encoding="utf-8").replace("STUDY", json.dumps(page), 1)
    save_text(folder / PAIRS, json.dumps({"id": identity, "pairs": pairs}, indent=1) + "\n")
    save_text(folder / "index.html", html)
    return len(pairs)


def compute_wilson_interval(wins: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % confidence interval of the share `wins` / `count`, in 0..1 (Wilson 1927)."""
    share, spread = wins / count, z * z / count
    centre = share + spread / 2
    half = z * sqrt(share * (1 - share) / count + spread / (4 * count))
    return (centre - half) / (1 + spread), (centre + half) / (1 + spread)


def read_answers(files: Sequence[str], study: Mapping[str, Any]) -> dict[str, dict[int, int]]:
    """Read the answers of people: person -> number of the pair -> chosen system of the pair, 0 or 1.

    Raises ValueError for files of another kind or study.
    """
    people: dict[str, dict[int, int]] = {}
    for file in files:
        try:
            content = json.loads(Path(file).read_text(encoding="utf-8"))
            identity, person = content["study"], content["person"]
            chosen = {int(a["pair"]): int(a["chosen"]) for a in content["answers"]}
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{file} holds no answers of a study: {error}") from error
        if identity != study["id"]:
            raise ValueError(f"{file} belongs to study {identity}, expected {study['id']}")
        if set(chosen) - set(range(len(study["pairs"]))) or set(chosen.values()) - {0, 1}:
            raise ValueError(f"{file} has answers to pairs that do not exist")
        people.setdefault(person, {}).update(chosen)
    return people


def format_summary(people: Mapping[str, Mapping[int, int]], pairs: Sequence[Any]) -> str:
    """Format Table 3 as Markdown: preferences with intervals, and how often two people agree on a pair."""
    rows = []
    for ours, other in dict.fromkeys(tuple(pair["systems"]) for pair in pairs):
        numbers = [n for n, pair in enumerate(pairs) if tuple(pair["systems"]) == (ours, other)]
        votes = {n: [answers[n] for answers in people.values() if n in answers] for n in numbers}
        count = sum(map(len, votes.values()))
        if not count:
            rows.append([f"{ours} v.s. {other}", "n/a", "n/a", 0, "n/a"])
            continue
        wins = sum(chosen.count(0) for chosen in votes.values())
        share, (low, high) = 100 * wins / count, compute_wilson_interval(wins, count)
        same = [a == b for chosen in votes.values() for a, b in combinations(chosen, 2)]
        preferred = f"{share:.1f} v.s. {100 - share:.1f}"
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
        agreement = f"{100 * np.mean(same):.1f}" if same else "n/a"
        rows.append([f"{ours} v.s. {other}", preferred, interval, count, agreement])
    header = ["", "preferred, %", "95 % interval of the first", "answers", "two people agree, %"]
    first = f"{len(people)} people, {sum(map(len, people.values()))} answers.\n"
    return "\n".join([first, *format_table(header, rows)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments; make a study, or print its table."""
    parser = Parser(prog="study.py", description=__doc__)
    text = "pictures of a system, matched by name"
    parser.add_argument("results", nargs="*", metavar="NAME=FOLDER", help=text)
    add_fields(parser.add_argument_group("options"), Options)
    with parser.exit_on_errors():
        values = vars(parser.parse(arguments))
        options = Options(**select_given(values, Options))
        if options.summary:
            study = json.loads(Path(options.output, PAIRS).read_text(encoding="utf-8"))
            print(format_summary(read_answers(options.summary, study), study["pairs"]))
        else:
            count = make_study(values["results"], options)
            print(f"{count} pairs: open {Path(options.output, 'index.html')}")


if __name__ == "__main__":
    main()
