"""The pack in ComfyUI's own frontend, in a real Chromium: templates, Run, previews, help, Chinese."""

from __future__ import annotations

import shutil

import pytest
from browser import READY, SHOTS, open_workflow, opened, run, shoot
from conftest import PACK, ROOT, SAMPLES
from server import Server
from workflows import WORKFLOWS, read

MISSING = (
    "() => app.graph._nodes.filter(n => !LiteGraph.registered_node_types[n.type]).map(n => n.type)"
)
# Drawn on the canvas a node has its pictures; drawn as an element, that has them.
SHOWN = """() => app.graph._nodes.filter(n => n.type === 'PreviewImage' && [...(n.imgs ?? []),
  ...document.querySelectorAll(`[data-node-id="${n.id}"] img`)].some(i => i.naturalWidth)).length"""
INFO = '.selection-toolbox button:has(i[class*="info"]), [data-testid="info-button"]'

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_template_opens_runs_and_shows_its_pictures(page, comfy, name):
    for sample in SAMPLES.iterdir():
        (comfy.base / "input" / sample.name).unlink(
            missing_ok=True
        )  # as on the user's machine: they must be brought
    comfy.forget()
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(PACK, exact=True).last.click(timeout=15000)
    card = page.locator(f'[data-testid="template-workflow-{name}"]')
    card.scroll_into_view_if_needed(timeout=15000)
    page.wait_for_timeout(500)
    shoot(page, f"dialog-{name}")
    card.click()
    first = read(name)["nodes"][0]
    page.wait_for_function(
        "t => app.graph._nodes[0]?.type === t && app.graph._nodes.length > 0",
        arg=first["type"],
        timeout=15000,
    )
    page.wait_for_function(
        "count => app.graph._nodes.length === count", arg=len(read(name)["nodes"]), timeout=15000
    )
    page.wait_for_timeout(1000)
    assert page.evaluate(MISSING) == []
    run(page, 300)
    assert page.evaluate("() => window.seen.length") > 2, "no progress was shown"
    previews = sum(node["type"] == "PreviewImage" for node in read(name)["nodes"])
    page.wait_for_function(f"({SHOWN})() === {previews}", timeout=60000)
    api = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert not any("picker" in key for node in api.values() for key in node["inputs"]), (
        "the picker is no input"
    )


def test_thumbnails_are_shown_in_the_dialog(page):
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(PACK, exact=True).last.click(timeout=15000)
    for name in WORKFLOWS:
        card = page.locator(f'[data-testid="template-workflow-{name}"]')
        card.scroll_into_view_if_needed(timeout=15000)
        page.wait_for_function(
            "name => [...document.querySelectorAll(`[data-testid='template-workflow-${name}'] img`)].some(i => i.naturalWidth)",
            arg=name, timeout=10000,
        )  # fmt: skip


@pytest.mark.parametrize(
    "node",
    [
        "LoadSCSNet",
        "SCSColorizeAuto",
        "SCSColorizeReference",
        "SCSContinuousUpscale",
        "AttentionMapViz",
    ],
)
def test_the_help_page_opens(page, node):
    workflow = (
        "See where the colours came from"
        if node in ("AttentionMapViz", "SCSColorizeReference")
        else "Colorize a photo and enlarge it 4 times"
    )
    open_workflow(page, workflow)
    page.evaluate(
        "t => { const n = app.graph._nodes.find(x => x.type === t); app.canvas.centerOnNode(n); app.canvas.selectNode(n); app.canvas.setDirty(true, true) }",
        node,
    )
    page.wait_for_timeout(500)
    page.locator(INFO).first.click(timeout=8000)
    page.get_by_text("When to use it").first.wait_for(timeout=8000)
    if SHOTS:
        page.wait_for_timeout(1500)  # its pictures


NUMBERS = {
    "scale": "2.37",
    "megapixels": "1.25",
    "window_x": "0.125",
    "window_width": "0.375",
    "strength": "0.85",
}


def test_typed_numbers_keep_their_decimals(page):
    open_workflow(page, "Enlarge by any factor")
    find = "const n = app.graph._nodes.find(n => n.title === '1.37 times');"
    vue = page.evaluate("() => LiteGraph.vueNodesMode === true")
    page.evaluate(
        f"() => {{ {find} app.canvas.ds.scale = 1; app.canvas.centerOnNode(n); app.canvas.setDirty(true, true) }}"
    )
    page.wait_for_timeout(800)
    if vue:
        node = page.locator(
            f"[data-node-id='{page.evaluate(f'() => {{ {find} return n.id }}')}']"
        ).first
        node.get_by_text("Show advanced inputs").click()
    for name, text in NUMBERS.items():
        value = f"() => {{ {find} return n.widgets.find(w => w.name === '{name}').value }}"
        if vue:
            field = (
                node.get_by_label(name.replace("_", " "), exact=True)
                .locator("input")
                .or_(node.get_by_role("spinbutton", name=name.replace("_", " "), exact=True))
            )
            for attempt in (text, None):  # then clicked into, with nothing typed
                field.first.click()
                if attempt:
                    field.first.fill(attempt)
                page.keyboard.press("Enter")
        else:
            place = page.evaluate(
                f"""() => {{ {find} const w = n.widgets.find(w => w.name === '{name}'), c = app.canvas,
                  box = c.canvas.getBoundingClientRect(), [x, y] = c.ds.convertOffsetToCanvas(
                    [n.pos[0] + n.size[0] / 2, n.pos[1] + (w.last_y ?? w.y) + 10]);
                  return [box.left + x, box.top + y] }}"""
            )
            for attempt in (text, None):
                page.mouse.dblclick(*place)
                field = page.locator(".graphdialog input").first
                field.wait_for(timeout=3000)
                if attempt:
                    field.fill(attempt)
                page.keyboard.press("Enter")
        page.wait_for_timeout(200)
        assert page.evaluate(value) == float(text), name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Colorize with the colours of another photo", "SCSColorizeReference"),
        ("Colorize a photo and enlarge it 4 times", "SCSColorizeAuto"),
    ],
)
def test_a_bypassed_node_hands_on_the_photo(page, name, kind):
    open_workflow(page, name)
    find = f"const n = app.graph._nodes.find(n => n.type === '{kind}');"
    photo = page.evaluate(
        f"() => {{ {find} n.mode = 4; return n.getInputNode(n.inputs.findIndex(i => i.name === 'image')).id }}"
    )
    api = page.evaluate("async () => (await app.graphToPrompt()).output")
    previews = [node["inputs"] for node in api.values() if node["class_type"] == "PreviewImage"]
    assert {"images": [str(photo), 0]} in previews


def test_in_chinese(browser, comfy):
    words = comfy.get("/i18n")["zh"]["nodeDefs"]["SCSColorizeAuto"]
    with opened(browser, comfy, language="zh") as tab:
        tab.evaluate("w => app.loadGraphData(w)", read("Colorize a photo and enlarge it 4 times"))
        tab.wait_for_timeout(1000)
        find = "const n = app.graph._nodes.find(n => n.type === 'SCSColorizeAuto');"
        assert tab.evaluate(f"() => {{ {find} return n.title }}") == words["display_name"]
        shown = tab.evaluate(f"""() => {{ {find} return [
          ...n.inputs.map(i => i.label ?? i.localized_name), ...n.widgets.map(w => w.label)] }}""")
        assert {item["name"] for item in words["inputs"].values()} <= set(shown)
        tab.evaluate(
            f"() => {{ {find} app.canvas.centerOnNode(n); app.canvas.selectNode(n); app.canvas.setDirty(true, true) }}"
        )
        tab.wait_for_timeout(500)
        tab.locator(INFO).first.click(timeout=8000)
        tab.get_by_text("何时使用").first.wait_for(timeout=8000)
        if SHOTS:
            tab.wait_for_timeout(1500)
        shoot(tab, "chinese")
        tab.evaluate("w => app.loadGraphData(w)", read("See where the colours came from"))
        tab.get_by_text("右键").first.wait_for(timeout=8000)


def test_two_copies_of_the_pack_do_not_stop_the_frontend(browser, archive, tmp_path):
    with Server(tmp_path, {PACK: ROOT, "ComfyUI SCSNet-0.1.0": archive}) as server:
        for sample in SAMPLES.iterdir():
            shutil.copy(sample, tmp_path / "input")
        server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False})
        tab = browser.new_page()
        tab.goto(server.url, wait_until="domcontentloaded")
        tab.wait_for_function(READY, timeout=60000)
        tab.wait_for_timeout(1500)
        tab.evaluate("w => app.loadGraphData(w)", read("See where the colours came from"))
        tab.wait_for_timeout(1500)
        assert tab.evaluate(MISSING) == []
        assert tab.locator(".scsnet-points").count() == 1
        tab.close()
