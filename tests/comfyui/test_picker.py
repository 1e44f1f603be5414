"""Points of AttentionMapViz picked with the mouse in ComfyUI's own frontend, in a real Chromium."""

from __future__ import annotations

import shutil

import pytest
from browser import open_workflow, run
from conftest import SAMPLES

PICK = "() => app.graph._nodes.find(n => n.type === 'AttentionMapViz')"

pytestmark = pytest.mark.browser


@pytest.fixture
def picker(page, comfy):
    """The attention study with its picker in view; a function from fractions to places on the screen."""
    for sample in SAMPLES.iterdir():  # other tests take them away
        shutil.copy(sample, comfy.base / "input")
    open_workflow(page, "See where the colours came from")
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


def test_a_subgraph_shows_the_photo_before_the_first_run(page, picker):
    """With the node alone inside, and with what it is connected to."""
    for kinds in (["AttentionMapViz"], ["SCSColorizeReference", "AttentionMapViz"]):
        open_workflow(page, "See where the colours came from")
        inside = page.evaluate(
            """kinds => { const g = app.graph, nodes = g._nodes.filter(n => kinds.includes(n.type));
              const { subgraph } = g.convertToSubgraph(new Set(nodes)); app.canvas.setGraph(subgraph);
              return subgraph._nodes.length }""",
            kinds,
        )
        assert inside == len(kinds)
        page.wait_for_function(
            "() => [...document.querySelectorAll('.scsnet-points-stage img')].some(i => i.src.includes('scsnet_alps'))",
            timeout=5000,
        )
        page.evaluate("() => app.canvas.setGraph(app.graph)")


CONTRAST = """() => {
  const luminance = color => { const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(v => (v /= 255) <= 0.04045
    ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const style = getComputedStyle(document.querySelector('.scsnet-points'));
  const [a, b] = [style.color, style.backgroundColor].map(luminance).sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05) }"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_empty_picker_can_be_read(page, picker, theme):
    """Contrast of WCAG, level AA."""
    set_theme = "t => app.extensionManager.setting.set('Comfy.ColorPalette', t)"
    page.evaluate(set_theme, theme)
    page.wait_for_timeout(500)
    try:
        assert page.evaluate(CONTRAST) >= 4.5
    finally:
        page.evaluate(set_theme, "dark")


def test_points_from_another_node_are_not_picked(page, picker):
    before = picker.text()
    page.evaluate(f"""() => {{ const n = ({PICK})(), t = LiteGraph.createNode('PrimitiveString'); app.graph.add(t);
      t.connect(0, n, n.inputs.findIndex(i => i.name === 'points')); }}""")
    page.get_by_text("the points come from").first.wait_for(timeout=5000)
    assert picker.marks() == 0
    page.mouse.click(*picker(0.9, 0.9))
    page.mouse.click(*picker(0.9, 0.9), button="right")
    page.evaluate(
        f"() => {{ const n = ({PICK})(); n.disconnectInput(n.inputs.findIndex(i => i.name === 'points')) }}"
    )
    page.get_by_text("click: add").first.wait_for(timeout=5000)
    assert picker.text() == before
    assert picker.marks() == len(points(before))


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


HINT = "() => app.graph._nodes.find(n => n.type === 'SCSColorHints')"


def test_hints_are_placed_with_the_chosen_colour(page, comfy):
    for sample in SAMPLES.iterdir():
        shutil.copy(sample, comfy.base / "input")
    open_workflow(page, "Say which colour goes where")
    page.evaluate(
        f"() => {{ const n = ({HINT})(); app.canvas.centerOnNode(n); app.canvas.setDirty(true, true) }}"
    )
    page.wait_for_function(
        "() => document.querySelector('.scsnet-points-stage img')?.naturalWidth", timeout=10000
    )
    page.wait_for_timeout(600)

    def text():
        return page.evaluate(f"() => ({HINT})().widgets.find(w => w.name === 'hints').value")

    def click(x, y, **options):
        box = page.locator(".scsnet-points-stage").first.bounding_box()
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"], **options)

    before = text().split("\n")
    assert page.locator(".scsnet-points-mark").count() == len(before)
    page.locator(".scsnet-hints-color").first.fill("#123456")
    click(0.75, 0.3)
    added = text().split("\n")[-1]
    place, color = added.split(" #")
    assert near(points(place)[0], (0.75, 0.3))
    assert color == "123456"
    # radius and strength of the others stay, a click on a hint takes its colour, a right click removes it
    assert [line.split(" ")[-1] for line in text().split("\n")[:-1]] == [
        line.split(" ")[-1] for line in before
    ]
    click(0.66, 0.75)
    assert page.locator(".scsnet-hints-color").first.input_value() == "#7f9fc8"
    click(0.75, 0.3, button="right")
    assert len(text().split("\n")) == len(before)
    assert "#123456" not in text()
