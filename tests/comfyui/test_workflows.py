"""Every shipped workflow fits the nodes of this ComfyUI, and runs as it is."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from conftest import PACK, SAMPLES, TINY
from prompts import pictures
from workflows import FOLDER, NOTES, OURS, WORKFLOWS, read, to_prompt


@pytest.fixture(scope="module")
def infos(comfy):
    return comfy.get("/object_info")


def test_the_template_dialog_lists_them(comfy):
    assert sorted(comfy.get("/workflow_templates")[PACK]) == WORKFLOWS


@pytest.mark.parametrize("name", WORKFLOWS)
def test_it_is_complete(name):
    workflow = read(name)
    kinds = [node["type"] for node in workflow["nodes"]]
    assert NOTES & set(kinds)
    assert set(OURS) & set(kinds)
    for node in workflow["nodes"]:
        if node["type"] not in NOTES:
            own = node["type"] in OURS
            assert node["properties"]["cnr_id"] == ("scsnet" if own else "comfy-core")
            assert node["properties"]["ver"]
            assert node["properties"]["Node name for S&R"] == node["type"]
        if node["type"] == "LoadSCSNet":  # the weights that ship: nothing for the browser to fetch
            assert node["widgets_values"][:2] == ["bundled", ""]
            assert node["properties"]["models"] == []
        elif node["type"].startswith("Load"):
            sample = node["widgets_values"][0]
            assert (SAMPLES / sample).is_file()
            assert sample in (FOLDER / "SOURCES.md").read_text()
    assert workflow["last_node_id"] == max(node["id"] for node in workflow["nodes"])


def test_the_samples_are_small_and_all_in_use():
    used = "".join((FOLDER / f"{name}.json").read_text() for name in WORKFLOWS)
    assert all(sample.name in used for sample in SAMPLES.iterdir())
    assert sum(sample.stat().st_size for sample in SAMPLES.iterdir()) < 600_000


@pytest.mark.parametrize("name", WORKFLOWS)
def test_it_runs_over_http(comfy, infos, name):
    prompt = to_prompt(read(name), infos)
    for node in prompt.values():
        if node["class_type"] == "LoadSCSNet":
            node["inputs"]["checkpoint"] = (
                TINY  # for speed; the browser runs them with the weights that ship
            )
    outputs = comfy.run(prompt)
    for number, node in prompt.items():
        if node["class_type"] == "PreviewImage":
            shown = pictures(comfy, outputs, number)
            assert shown
            assert all(picture.std() > 0.01 for picture in shown), "an empty picture"
        if node["class_type"] == "SaveVideo":
            (video,) = outputs[number]["images"]
            assert comfy.view(video)[4:8] == b"ftyp"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_it_runs_with_the_weights_that_ship(comfy, infos, name):
    outputs = comfy.run(to_prompt(read(name), infos), timeout=300)
    assert any("images" in output for output in outputs.values())


@pytest.mark.parametrize("name", WORKFLOWS)
def test_its_thumbnail_is_served(comfy, name):
    assert comfy.raw(f"/api/workflow_templates/{PACK}/{quote(name)}.jpg")[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize("node", sorted(OURS))
def test_help_pages_are_served(comfy, node):
    page = comfy.raw(f"/extensions/{PACK}/docs/{node}.md").decode()
    assert page.startswith("# ")
    assert comfy.raw(f"/extensions/{PACK}/docs/{node}/zh.md")


def test_translations_are_merged(comfy):
    words = comfy.get("/i18n")
    for language in ("en", "zh"):
        assert words[language]["nodeDefs"].keys() >= set(OURS)
