"""The human study: the page in a real browser, its table by independent arithmetic."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training_run import refuse

from training import study

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
LEVELS = {"Ours": 250, "Second": 10, "Third": 120}


@pytest.fixture
def folder(tmp_path):
    """A study of three systems; each system's pictures are one gray value."""
    for name, level in LEVELS.items():
        (tmp_path / name).mkdir()
        for number in range(4 if name != "Third" else 3):
            Image.new("RGB", (40, 30), (level,) * 3).save(tmp_path / name / f"p{number}.png")
    results = f"Ours={tmp_path}/Ours {tmp_path}/Second {tmp_path}/Third"
    study.main(f"{results} --output {tmp_path}/study --seconds 0.8".split())
    return tmp_path / "study"


def read_page(folder):
    html = (folder / "index.html").read_text("utf-8")
    return json.loads(html.split('type="application/json">')[1].split("</script>")[0])


def read_pairs(folder):
    return json.loads((folder / "pairs.json").read_text())


def test_pairs_are_blind_and_complete(folder):
    page, known = read_page(folder), read_pairs(folder)
    assert page["id"] == known["id"]
    systems = [pair["systems"] for pair in known["pairs"]]
    assert systems == [["Ours", "Second"]] * 4 + [["Ours", "Third"]] * 3
    files = [file for pair in page["pairs"] for file in pair["files"]]
    levels = [np.asarray(Image.open(folder / file))[0, 0, 0] for file in files]
    assert levels == [LEVELS[system] for pair in systems for system in pair]
    text = (folder / "index.html").read_text("utf-8")
    assert not any(name in text for name in LEVELS)
    assert len(set(files)) == 14
    assert files != sorted(files)


def write_answers(folder, person, chosen, **changes):
    answers = [{"pair": n, "left": 0, "chosen": c} for n, c in chosen.items()]
    content = {"format": "scsnet-study-1", "study": read_page(folder)["id"], "name": ""}
    path = folder / f"answers-{person}.json"
    path.write_text(json.dumps(content | {"person": person, "answers": answers} | changes))
    return str(path)


def test_table_has_preferences_intervals_and_agreement(folder, capsys):
    files = [
        write_answers(folder, "a", {0: 0, 1: 0, 2: 1, 3: 0, 4: 1}),
        write_answers(folder, "b", {0: 0, 1: 1, 2: 1, 3: 0}),
        write_answers(folder, "c", {0: 0, 1: 0}),
    ]
    study.main(["--summary", *files, "--output", str(folder)])
    table = capsys.readouterr().out
    assert "3 people, 11 answers" in table
    # 7 of 10 preferred; people agree on 3 of 3, 1 of 3, 1 of 1 and 1 of 1 of their pairs: 6 of 8.
    # Wilson's interval solves (p - x)^2 = z^2 x (1 - x) / n for x.
    z2 = 1.96**2 / 10
    low, high = 100 * np.sort(np.roots([1 + z2, -(2 * 0.7 + z2), 0.49]))
    row = f"| Ours v.s. Second | 70.0 v.s. 30.0 | {low:.1f} to {high:.1f} | 10 | 75.0 |"
    assert row in table
    assert "| Ours v.s. Third | 0.0 v.s. 100.0 | " in table
    assert table.strip().endswith("| 1 | n/a |")


def test_unusable_answers_and_results_are_named(folder, tmp_path):
    (tmp_path / "none.json").write_text("[]")
    for file, message in (
        (write_answers(folder, "a", {0: 0}, study="0"), "belongs to study 0"),
        (str(tmp_path / "none.json"), "holds no answers"),
        (write_answers(folder, "d", {99: 0}), "pairs that do not exist"),
    ):
        with pytest.raises(ValueError, match=message):
            study.read_answers([file], read_pairs(folder))
    for results, message in (
        (f"A={folder}", "at least two folders"),
        (f"A={folder} A={folder}", "different names"),
    ):
        assert message in refuse(study.main, f"{results} --output {tmp_path}/new")


def test_answers_are_given_in_a_browser(folder):
    """German by the browser's language, Chinese by choice; keys and taps, a reload in the middle, a file at the end."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no Chromium at {CHROMIUM}; set CHROMIUM")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(accept_downloads=True, locale="de-DE", has_touch=True)
        page.goto((folder / "index.html").as_uri())
        assert page.inner_text("h1") == "Welches Foto sieht echter aus?"
        page.click("text=中文")
        assert "0.8 秒" in page.inner_text("#start")
        page.fill("#name", "Li")
        page.click("#begin")
        pairs = [pair["files"] for pair in read_page(folder)["pairs"]]
        chosen = {}
        for number in range(len(pairs)):
            if number == 3:
                page.reload()
            page.wait_for_selector("#pair.shown")
            files = [page.get_attribute(f"#{side}", "src") for side in ("left", "right")]
            assert page.is_disabled("#choose-left")
            page.wait_for_selector("#choose-left:enabled")
            assert page.eval_on_selector("#left", "e => getComputedStyle(e).visibility") == "hidden"
            pair = next(n for n, pair in enumerate(pairs) if sorted(pair) == sorted(files))
            side = number % 2
            chosen[pair] = pairs[pair].index(files[side])
            if number % 3:
                page.keyboard.press(("ArrowLeft", "ArrowRight")[side])
            else:
                page.tap(("#choose-left", "#choose-right")[side])
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(folder / "saved.json")
        browser.close()
    saved = json.loads((folder / "saved.json").read_text())
    assert saved["name"] == "Li"
    answers = study.read_answers([str(folder / "saved.json")], read_pairs(folder))
    assert answers == {saved["person"]: chosen}
