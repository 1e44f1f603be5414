"""The pack in ComfyUI's own frontend, in a real Chromium: templates, Run, previews, help, points by mouse."""

from __future__ import annotations

import os
import shutil
import urllib.parse
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import PACK, SAMPLES, TINY
from workflows import WORKFLOWS, read

from scsnet.checkpoint import BUNDLED

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
SHOTS = os.environ.get("SCREENSHOTS")  # a folder that pictures of the pages are written to
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
READY = "() => window.app?.graph && window.app?.extensionManager"
MISSING = (
    "() => app.graph._nodes.filter(n => !LiteGraph.registered_node_types[n.type]).map(n => n.type)"
)
# Ids are numbers in older frontends and strings in newer ones; the events say how a run ends in all of them.
FOLLOW = """() => { window.seen = []; window.over = null;
  app.api.addEventListener('progress', e => window.seen.push(e.detail.value / e.detail.max));
  app.api.addEventListener('execution_success', () => window.over = 'success');
  app.api.addEventListener('execution_error', e => window.over = e.detail.exception_message);
  app.api.addEventListener('execution_interrupted', () => window.over = 'interrupted'); }"""
# Drawn on the canvas a node has its pictures; drawn as an element, that has them.
SHOWN = """() => app.graph._nodes.filter(n => n.type === 'PreviewImage' && [...(n.imgs ?? []),
  ...document.querySelectorAll(`[data-node-id="${n.id}"] img`)].some(i => i.naturalWidth)).length"""
# The button itself in newer frontends, a group of buttons around it in older ones.
RUN = 'button[data-testid="queue-button"], [data-testid="queue-button"] button[aria-label="Run"]'
PICK = "() => app.graph._nodes.find(n => n.type === 'AttentionMapViz')"

INFO = '.selection-toolbox button:has(i[class*="info"]), [data-testid="info-button"]'

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def browser():
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    with sync_api.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield chromium
        chromium.close()


@contextmanager
def opened(browser, comfy, vue=False, language="en"):
    """The frontend, ready."""
    settings = {"Comfy.Locale": language, "Comfy.VueNodes.Enabled": vue}
    comfy.post("/settings", {"Comfy.TutorialCompleted": True, **settings})
    context = browser.new_context(
        viewport={"width": 1600, "height": 950}, locale="en-US", service_workers="block"
    )
    context.route(
        lambda url: (
            urllib.parse.urlsplit(url).hostname not in ("127.0.0.1", "localhost")
            and url.startswith("http")
        ),
        lambda route: route.abort(),
    )
    # Without the optional package of ComfyUI's own templates the dialog never finishes loading in older frontends.
    context.route("**/templates/index.json", _own_templates)
    tab = context.new_page()
    tab.goto(comfy.url, wait_until="domcontentloaded")
    tab.wait_for_function(READY, timeout=60000)
    tab.wait_for_timeout(1500)
    try:
        yield tab
    finally:
        context.close()


@pytest.fixture(scope="module", params=["canvas", "vue"])
def tab(browser, comfy, request):
    """Nodes drawn on the canvas, or as elements ("Nodes 2.0" of newer frontends)."""
    vue = request.param == "vue"
    with opened(browser, comfy, vue) as tab:
        if vue and not tab.evaluate("() => LiteGraph.vueNodesMode === true"):
            pytest.skip("this frontend draws on the canvas only")
        version = tab.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__ ?? '0.0'")
        if vue and tuple(int(part) for part in version.split(".")[:2]) < (1, 28):
            pytest.skip(f"{version} draws no text, pictures or notes of any pack as elements yet")
        tab.evaluate(FOLLOW)
        yield tab


@pytest.fixture
def page(tab, request):
    """The same page for all tests: each opens its own workflow."""
    tab.set_default_timeout(15000)
    yield tab
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=str(Path(SHOTS, request.node.name.replace("/", "_") + ".png")))
    for _ in range(2):  # dialogs and menus that a failed test has left open
        tab.keyboard.press("Escape")


def _own_templates(route):
    answer = route.fetch()
    if answer.ok:
        route.fulfill(response=answer)
    else:
        route.fulfill(json=[])


def open_workflow(page, name):
    page.evaluate("w => app.loadGraphData(w)", read(name))
    page.wait_for_timeout(500)
    small_weights(page)


def small_weights(page):
    """Where no weights ship yet, the workflows run with random ones."""
    if not BUNDLED.is_file():
        page.evaluate(
            "name => app.graph._nodes.filter(n => n.type === 'LoadSCSNet').forEach(n => n.widgets[0].value = name)",
            TINY,
        )


def run(page, seconds=120):
    """Press the Run button and wait for the end."""
    page.evaluate("() => { window.over = null; window.seen = [] }")
    page.locator(RUN).first.click()
    page.wait_for_function("() => window.over", timeout=seconds * 1000)
    assert page.evaluate("() => window.over") == "success"


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
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS, f"dialog-{name}.png")))
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
    small_weights(page)
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


@pytest.fixture
def picker(page, comfy):
    """The attention study with its picker in view; a function from fractions to places on the screen."""
    for sample in SAMPLES.iterdir():  # other tests take them away
        shutil.copy(sample, comfy.base / "input")
    open_workflow(page, "scsnet_attention_study")
    page.evaluate(
        f"() => {{ const n = ({PICK})(); app.canvas.centerOnNode(n); app.canvas.setDirty(true, true) }}"
    )
    stage = page.locator(".scsnet-points-stage").first
    stage.wait_for(timeout=10000)
    page.wait_for_function(
        "() => document.querySelector('.scsnet-points-stage img')?.naturalWidth", timeout=10000
    )
    page.wait_for_timeout(600)

    def place(x, y):
        box = stage.bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    place.text = lambda: page.evaluate(
        f"() => ({PICK})().widgets.find(w => w.name === 'points').value"
    )
    place.set = lambda text: page.evaluate(
        f"t => ({PICK})().widgets.find(w => w.name === 'points').value = t", text
    )
    place.marks = lambda: page.locator(".scsnet-points-mark").count()
    return place


def points(text):
    return [tuple(float(v) for v in part.split(",")) for part in text.split(";") if part.strip()]


def near(a, b):
    return abs(a[0] - b[0]) < 0.01 and abs(a[1] - b[1]) < 0.01


def test_points_are_picked_with_the_mouse(page, picker):
    picker.set("0.200, 0.200")
    page.wait_for_function("() => document.querySelectorAll('.scsnet-points-mark').length === 1")
    page.mouse.click(*picker(0.6, 0.7))  # add
    assert picker.marks() == 2
    assert near(points(picker.text())[1], (0.6, 0.7)), picker.text()
    page.mouse.move(*picker(0.6, 0.7))  # move
    page.mouse.down()
    page.mouse.move(*picker(0.5, 0.5), steps=4)
    page.mouse.move(*picker(0.8, 0.3), steps=4)
    page.mouse.up()
    assert near(points(picker.text())[1], (0.8, 0.3)), picker.text()
    assert len(points(picker.text())) == 2
    page.mouse.click(*picker(0.2, 0.2), button="right")  # remove
    assert picker.marks() == 1
    assert near(points(picker.text())[0], (0.8, 0.3)), picker.text()
    page.mouse.click(*picker(0.4, 0.9), button="right")  # on nothing: nothing
    assert len(points(picker.text())) == 1


def test_a_drag_beyond_the_border_stays_inside(page, picker):
    picker.set("0.500, 0.500")
    page.wait_for_function("() => document.querySelectorAll('.scsnet-points-mark').length === 1")
    page.mouse.move(*picker(0.5, 0.5))
    page.mouse.down()
    page.mouse.move(*picker(-0.2, 1.3), steps=5)
    page.mouse.up()
    assert points(picker.text()) == [(0.0, 1.0)]


def test_the_text_and_the_marks_stay_in_step(page, picker):
    picker.set("0.1, 0.1; 0.2, 0.2; 0.3, 0.3; 0.4, 0.4")
    page.wait_for_function(
        "() => document.querySelectorAll('.scsnet-points-mark').length === 4", timeout=3000
    )
    picker.set("")
    page.wait_for_function(
        "() => document.querySelectorAll('.scsnet-points-mark').length === 0", timeout=3000
    )
    page.mouse.click(*picker(0.25, 0.75))
    assert near(points(picker.text())[0], (0.25, 0.75))


def test_undo_takes_a_point_back(page, picker):
    before = picker.text()
    page.mouse.click(*picker(0.9, 0.9))
    assert picker.text() != before
    page.wait_for_timeout(500)
    page.keyboard.press("Control+z")
    page.wait_for_function(
        f"t => ({PICK})()?.widgets.find(w => w.name === 'points').value === t",
        arg=before,
        timeout=5000,
    )
    marks = (
        f"() => document.querySelectorAll('.scsnet-points-mark').length === {len(points(before))}"
    )
    page.wait_for_function(marks, timeout=5000)
    page.mouse.click(*picker(0.1, 0.2))  # what is shown now still belongs to the node
    assert len(points(picker.text())) == len(points(before)) + 1


def test_picked_points_reach_the_node_and_the_file(page, picker, comfy):
    picker.set("")
    page.mouse.click(*picker(0.25, 0.75))
    page.mouse.click(*picker(0.75, 0.25))
    text = picker.text()
    saved = page.evaluate("() => app.graph.serialize()")
    (node,) = [n for n in saved["nodes"] if n["type"] == "AttentionMapViz"]
    assert node["widgets_values"][:5] == [text, "all", "both", "inferno", 1.0]
    assert [v for v in node["widgets_values"][5:] if v] == []
    comfy.post("/history", {"clear": True})
    run(page)
    prompt = next(iter(comfy.get("/history").values()))["prompt"][2]
    (viz,) = [n for n in prompt.values() if n["class_type"] == "AttentionMapViz"]
    assert viz["inputs"]["points"] == text


def test_the_picker_follows_the_loader_and_the_last_run(page, picker):
    source = "() => document.querySelector('.scsnet-points-stage img').src"
    assert "scsnet_alps.jpg" in page.evaluate(source)
    page.evaluate(
        "() => { app.graph._nodes.find(n => n.widgets?.[0]?.value === 'scsnet_alps.jpg').widgets[0].value = 'scsnet_autumn.jpg' }"
    )
    page.wait_for_function(f"() => ({source})().includes('scsnet_autumn.jpg')", timeout=3000)
    # A picture that is not there leaves a hint in its place, and does not flood the server with questions.
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    set_name = "name => app.graph._nodes.find(n => /^scsnet_(autumn|gone)/.test(n.widgets?.[0]?.value)).widgets[0].value = name"
    page.evaluate(set_name, "scsnet_gone.jpg")
    page.get_by_text("Connect a picture upstream").first.wait_for(timeout=3000)
    page.wait_for_timeout(2000)
    assert sum("scsnet_gone.jpg" in url for url in asked) <= 4  # the loader's own preview asks too
    page.evaluate(set_name, "scsnet_autumn.jpg")
    page.wait_for_function(
        "() => document.querySelector('.scsnet-points-stage img').clientWidth > 50", timeout=3000
    )
    # Behind another node there is no loader to read: the picture of the last run is shown.
    page.evaluate("""() => { const g = app.graph, find = t => g._nodes.find(n => n.type === t);
      const flip = LiteGraph.createNode('ImageInvert'); g.add(flip);
      const load = g._nodes.find(n => n.widgets?.[0]?.value === 'scsnet_autumn.jpg');
      load.connect(0, flip, 0); flip.connect(0, find('SCSColorizeReference'), 1); }""")
    run(page)
    page.wait_for_function(f"() => ({source})().includes('type=temp')", timeout=5000)
    page.wait_for_function(
        "() => document.querySelector('.scsnet-points-stage img').naturalWidth === 360",
        timeout=5000,
    )
    # After the page was reloaded nothing is left of that, and a run takes everything from ComfyUI's cache.
    page.evaluate(f"() => {{ delete ({PICK})().scsnetSource }}")
    page.get_by_text("Connect a picture upstream").first.wait_for(timeout=3000)
    run(page)
    page.locator(".scsnet-points-stage").first.wait_for(timeout=5000)
    assert "type=temp" in page.evaluate(source)


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
        "scsnet_attention_study"
        if node in ("AttentionMapViz", "SCSColorizeReference")
        else "scsnet_auto_x4"
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
        page.wait_for_timeout(1500)
        page.screenshot(path=str(Path(SHOTS, f"help-{node}.png")))


def test_in_chinese(browser, comfy):
    words = comfy.get("/i18n")["zh"]["nodeDefs"]["SCSColorizeAuto"]
    with opened(browser, comfy, language="zh") as tab:
        tab.evaluate("w => app.loadGraphData(w)", read("scsnet_auto_x4"))
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
            tab.screenshot(path=str(Path(SHOTS, "chinese.png")))


def test_two_copies_of_the_pack_do_not_stop_the_frontend(browser, tmp_path):
    from conftest import ROOT, SAMPLES
    from server import Server

    with Server(tmp_path, {PACK: ROOT, "second_copy": ROOT}) as server:
        for sample in SAMPLES.iterdir():
            shutil.copy(sample, tmp_path / "input")
        server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False})
        tab = browser.new_page()
        tab.goto(server.url, wait_until="domcontentloaded")
        tab.wait_for_function(READY, timeout=60000)
        tab.wait_for_timeout(1500)
        tab.evaluate("w => app.loadGraphData(w)", read("scsnet_attention_study"))
        tab.wait_for_timeout(1500)
        assert tab.evaluate(MISSING) == []
        assert tab.locator(".scsnet-points").count() == 1
        tab.close()
