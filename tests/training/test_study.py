"""The human study: the page in a real browser, its table by independent arithmetic."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
    results = [f"Ours={tmp_path / 'Ours'}", str(tmp_path / "Second"), str(tmp_path / "Third")]
    study.main([*results, "--output", str(tmp_path / "study"), "--seconds", "0.8"])
    return tmp_path / "study"


def level(path):
    return np.asarray(Image.open(path))[0, 0, 0]


def shown(folder):
    html = (folder / "index.html").read_text("utf-8")
    return json.loads(html.split('type="application/json">')[1].split("</script>")[0])


def test_pairs_are_blind_and_complete(folder):
    page, known = shown(folder), json.loads((folder / "pairs.json").read_text())
    assert page["id"] == known["id"]
    assert [pair["systems"] for pair in known["pairs"]] == [["Ours", "Second"]] * 4 + [
        ["Ours", "Third"]
    ] * 3
    for pair, facts in zip(page["pairs"], known["pairs"], strict=True):
        assert [level(folder / file) for file in pair["files"]] == [
            LEVELS[s] for s in facts["systems"]
        ]
    text = (folder / "index.html").read_text("utf-8")
    assert not any(name in text for name in LEVELS)
    order = [int(file.split("/")[1][:5]) for pair in page["pairs"] for file in pair["files"]]
    assert order != sorted(order)
    assert sorted(order) == list(range(14))


def answers(folder, person, chosen):
    content = {
        "format": "scsnet-study-1",
        "study": shown(folder)["id"],
        "person": person,
        "name": "",
    }
    content["answers"] = [{"pair": n, "left": 0, "chosen": c} for n, c in chosen.items()]
    path = folder / f"answers-{person}.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_the_table(folder, capsys):
    files = [
        answers(folder, "a", {0: 0, 1: 0, 2: 1, 3: 0, 4: 1}),
        answers(folder, "b", {0: 0, 1: 1, 2: 1, 3: 0}),
        answers(folder, "c", {0: 0, 1: 0}),
    ]
    study.main(["--summary", *files, "--output", str(folder)])
    table = capsys.readouterr().out
    assert "3 people, 11 answers" in table
    # 7 of 10 preferred; people agree on 3 of 3, 1 of 3, 1 of 1 and 1 of 1 of their pairs: 6 of 8.
    # Wilson's interval solves (p - x)^2 = z^2 x (1 - x) / n for x.
    z2 = 1.96**2 / 10
    low, high = sorted(np.roots([1 + z2, -(2 * 0.7 + z2), 0.49]))
    assert (
        f"| Ours v.s. Second | 70.0 v.s. 30.0 | {100 * low:.1f} to {100 * high:.1f} | 10 | 75.0 |"
        in table
    )
    assert "| Ours v.s. Third | 0.0 v.s. 100.0 | " in table
    assert table.strip().endswith("| 1 | n/a |")


def test_what_cannot_be_used_is_named(folder, tmp_path):
    other = json.loads(Path(answers(folder, "a", {0: 0})).read_text()) | {"study": "0"}
    (tmp_path / "other.json").write_text(json.dumps(other))
    (tmp_path / "none.json").write_text("[]")
    known = json.loads((folder / "pairs.json").read_text())
    with pytest.raises(ValueError, match="belongs to study 0"):
        study.read_answers([str(tmp_path / "other.json")], known)
    with pytest.raises(ValueError, match="holds no answers"):
        study.read_answers([str(tmp_path / "none.json")], known)
    with pytest.raises(ValueError, match="pairs that do not exist"):
        study.read_answers([answers(folder, "d", {99: 0})], known)
    for wrong in (["A=x"], [f"A={folder}", f"A={folder}"]):
        with pytest.raises(SystemExit) as stopped:
            study.main([*wrong, "--output", str(tmp_path / "new")])
        assert stopped.value.code == 2


@pytest.fixture
def page(folder):
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no Chromium at {CHROMIUM}; set CHROMIUM")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(accept_downloads=True, locale="de-DE", has_touch=True)
        page = context.new_page()
        page.goto((folder / "index.html").as_uri())
        yield page
        browser.close()


def test_in_a_browser(folder, page):
    """German by the browser's language, Chinese by choice; keys and taps, a reload in the middle, the file at the end."""
    assert page.inner_text("h1") == "Welches Foto sieht echter aus?"
    page.click("text=中文")
    assert "0.8 秒" in page.inner_text("#start")
    page.fill("#name", "Li")
    page.click("#begin")
    pairs = shown(folder)["pairs"]
    chosen = {}
    for number in range(len(pairs)):
        if number == 3:
            page.reload()
        page.wait_for_selector("#pair.shown")
        files = [page.get_attribute(f"#{side}", "src") for side in ("left", "right")]
        assert page.is_disabled("#choose-left")
        page.wait_for_selector("#choose-left:enabled")
        assert page.eval_on_selector("#left", "e => getComputedStyle(e).visibility") == "hidden"
        pair = next(n for n, p in enumerate(pairs) if sorted(p["files"]) == sorted(files))
        side = number % 2
        chosen[pair] = pairs[pair]["files"].index(files[side])
        if number % 3:
            page.keyboard.press(("ArrowLeft", "ArrowRight")[side])
        else:
            page.tap(("#choose-left", "#choose-right")[side])
    with page.expect_download() as download:
        page.click("#save")
    saved = json.loads(Path(download.value.path()).read_text())
    assert saved["name"] == "Li"
    assert {a["pair"]: a["chosen"] for a in saved["answers"]} == chosen
    known = json.loads((folder / "pairs.json").read_text())
    download.value.save_as(folder / "saved.json")
    assert study.read_answers([str(folder / "saved.json")], known) == {saved["person"]: chosen}
