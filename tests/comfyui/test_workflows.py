"""Every shipped workflow fits the nodes of this ComfyUI, and runs as it is."""

from urllib.parse import quote

import pytest
from conftest import PACK, SAMPLES
from prompts import Link, pictures
from workflows import FOLDER, NOTES, OURS, WORKFLOWS, read, to_prompt


def test_the_host_serves_templates_help_and_translations(comfy):
    assert sorted(comfy.get("/workflow_templates")[PACK]) == WORKFLOWS
    for name in WORKFLOWS:
        picture = comfy.raw(f"/api/workflow_templates/{PACK}/{quote(name)}.jpg")
        assert picture[:3] == b"\xff\xd8\xff"
    words = comfy.get("/i18n")
    assert all(words[language]["nodeDefs"].keys() >= set(OURS) for language in ("en", "zh"))
    for node in OURS:
        assert comfy.raw(f"/extensions/{PACK}/docs/{node}.md").startswith(b"# ")
        assert comfy.raw(f"/extensions/{PACK}/docs/{node}/zh.md")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_it_has_notes_versions_bundled_weights_and_shipped_samples(name):
    workflow = read(name)
    kinds = {node["type"] for node in workflow["nodes"]}
    assert NOTES & kinds
    assert set(OURS) & kinds
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
def test_it_runs_over_http_with_the_bundled_weights(comfy, name):
    prompt = to_prompt(read(name), comfy.get("/object_info"))
    outputs = comfy.run(prompt, timeout=300)
    for number, node in prompt.items():
        if node["class_type"] == "PreviewImage":
            shown = pictures(comfy, outputs, Link(number))
            assert shown
            assert all(picture.std() > 0.01 for picture in shown), "an empty picture"
        if node["class_type"] == "SaveVideo":
            (video,) = outputs[number]["images"]
            assert comfy.view(video)[4:8] == b"ftyp"
