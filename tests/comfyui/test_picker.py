"""Points of AttentionMapViz and hints of SCSColorHints, picked with the mouse in ComfyUI's own frontend, in a real Chromium."""

import re

import pytest
from browser import open_workflow, run, shoot

STAGE, MARK = ".scsnet-points-stage", ".scsnet-points-mark"
SOURCE = "() => document.querySelector('.scsnet-points-stage img').src"

pytestmark = pytest.mark.browser


class Picker:
    """A picker in view; places are fractions of its picture."""

    def __init__(self, page, workflow, node, widget):
        self.page, self.node, self.widget = page, node, [node, widget]
        open_workflow(page, workflow, node)
        loaded = "() => document.querySelector('.scsnet-points-stage img')?.naturalWidth"
        page.wait_for_function(loaded)
        page.wait_for_timeout(600)

    def at(self, x, y):
        """The place on the screen."""
        box = self.page.locator(STAGE).first.bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def click(self, x, y, **options):
        self.page.mouse.click(*self.at(x, y), **options)

    def drag(self, *places):
        self.page.mouse.move(*self.at(*places[0]))
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*self.at(*place), steps=4)
        self.page.mouse.up()

    @property
    def text(self):
        return self.page.evaluate("([node, name]) => widget(node, name).value", self.widget)

    def set(self, text):
        """Change the text and wait for its marks."""
        set_value = "([node, name, text]) => { widget(node, name).value = text }"
        self.page.evaluate(set_value, [*self.widget, text])
        self.page.wait_for_function(
            f"count => document.querySelectorAll('{MARK}').length === count",
            arg=len(points(text)),
        )

    def marks(self):
        return self.page.locator(MARK).count()


def points(text):
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+), ([\d.]+)", text)]


def near(*places):
    return pytest.approx(places, abs=0.01)


@pytest.fixture
def picker(page):
    return Picker(page, "See where the colours came from", "AttentionMapViz", "points")


@pytest.fixture
def hints(page):
    return Picker(page, "Say which colour goes where", "SCSColorHints", "hints")


def test_a_click_adds_a_drag_moves_a_right_click_removes(picker):
    picker.set("0.200, 0.200")
    picker.click(0.6, 0.7)
    assert picker.marks() == 2
    assert points(picker.text)[1] == near(0.6, 0.7)
    picker.drag((0.6, 0.7), (0.5, 0.5), (0.8, 0.3))
    assert points(picker.text)[1] == near(0.8, 0.3)
    picker.drag((0.8, 0.3), (-0.2, 1.3))  # beyond the border: stays inside
    assert points(picker.text) == [near(0.2, 0.2), (0.0, 1.0)]
    picker.click(0.2, 0.2, button="right")
    assert picker.marks() == 1
    picker.click(0.4, 0.9, button="right")  # on nothing: nothing
    assert points(picker.text) == [(0.0, 1.0)]


def test_a_click_places_a_hint_of_the_chosen_colour(page, hints):
    before = hints.text.split("\n")
    assert hints.marks() == len(before)
    page.locator(".scsnet-hints-color").first.fill("#123456")
    hints.click(0.75, 0.3)
    *others, added = hints.text.split("\n")
    assert points(added) == [near(0.75, 0.3)]
    assert added.endswith(" #123456")
    assert others == before, "radius and strength of the others stay"
    hints.click(0.66, 0.75)  # on a hint: takes its colour
    assert page.locator(".scsnet-hints-color").first.input_value() == "#7f9fc8"
    hints.drag((0.66, 0.75), (0.5, 0.5))
    assert re.search(r"0\.(50|49)\d, 0\.(50|49)\d #7f9fc8 0.03", hints.text)
    hints.click(0.75, 0.3, button="right")
    assert len(hints.text.split("\n")) == len(before)
    assert "#123456" not in hints.text


@pytest.mark.parametrize(
    "kinds", [["AttentionMapViz"], ["SCSColorizeReference", "AttentionMapViz"]]
)
def test_a_subgraph_shows_the_photo_before_the_first_run(page, picker, kinds):
    """With the node alone inside, and with what it is connected to."""
    inside = page.evaluate(
        """kinds => { const nodes = app.graph._nodes.filter(n => kinds.includes(n.type));
          const { subgraph } = app.graph.convertToSubgraph(new Set(nodes)); app.canvas.setGraph(subgraph);
          return subgraph._nodes.length }""",
        kinds,
    )
    assert inside == len(kinds)
    page.wait_for_function(
        f"() => [...document.querySelectorAll('{STAGE} img')].some(i => i.src.includes('scsnet_alps'))",
    )
    page.evaluate("() => app.canvas.setGraph(app.graph)")


# Of a picker's text on its background, as WCAG defines it.
CONTRAST = """() => {
  const luminance = color => { const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(v => (v /= 255) <= 0.04045
    ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const style = getComputedStyle(document.querySelector('.scsnet-points'));
  const [a, b] = [style.color, style.backgroundColor].map(luminance).sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05) }"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pickers_words_can_be_read(page, hints, theme):
    """Contrast of WCAG, level AA."""
    set_theme = "t => app.extensionManager.setting.set('Comfy.ColorPalette', t)"
    page.evaluate(set_theme, theme)
    page.wait_for_timeout(500)
    try:
        shoot(page, f"picker-{theme}")
        assert page.evaluate(CONTRAST) >= 4.5
    finally:
        page.evaluate(set_theme, "dark")


def test_points_from_another_node_are_not_picked(page, picker):
    before = picker.text
    page.evaluate("""() => { const n = find('AttentionMapViz'), t = LiteGraph.createNode('PrimitiveString'); app.graph.add(t);
      t.connect(0, n, n.inputs.findIndex(i => i.name === 'points')) }""")
    page.get_by_text("the points come from").first.wait_for()
    assert picker.marks() == 0
    picker.click(0.9, 0.9)
    picker.click(0.9, 0.9, button="right")
    page.evaluate(
        "() => { const n = find('AttentionMapViz'); n.disconnectInput(n.inputs.findIndex(i => i.name === 'points')) }"
    )
    page.get_by_text("click: add").first.wait_for()
    assert picker.text == before
    assert picker.marks() == len(points(before))


@pytest.mark.parametrize("kind", ["picker", "hints"])
def test_undo_takes_a_point_back(page, request, kind):
    picker = request.getfixturevalue(kind)
    before = picker.text
    picker.click(0.9, 0.4)
    assert picker.text != before
    page.wait_for_timeout(500)
    page.keyboard.press("Control+z")
    page.wait_for_function(
        f"([node, name, text]) => find(node) && widget(node, name).value === text && document.querySelectorAll('{MARK}').length === {len(points(before))}",
        arg=[*picker.widget, before],
    )
    picker.click(0.9, 0.5)  # what is shown now still belongs to the node
    assert len(points(picker.text)) == len(points(before)) + 1


def test_picked_points_reach_the_node_and_the_file(page, picker, comfy):
    picker.set("")
    picker.click(0.25, 0.75)
    picker.click(0.75, 0.25)
    text = picker.text
    assert points(text) == [near(0.25, 0.75), near(0.75, 0.25)]
    saved = page.evaluate("() => app.graph.serialize()")
    (node,) = [n for n in saved["nodes"] if n["type"] == "AttentionMapViz"]
    assert node["widgets_values"][:5] == [text, "all", "both", "inferno", 1.0]
    assert not any(node["widgets_values"][5:]), "the picker is in the file"
    comfy.post("/history", {"clear": True})
    run(page)
    prompt = next(iter(comfy.get("/history").values()))["prompt"][2]
    (viz,) = [n for n in prompt.values() if n["class_type"] == "AttentionMapViz"]
    assert viz["inputs"]["points"] == text


def test_the_picker_follows_the_loader(page, picker):
    """A picture that is gone leaves a hint and few requests."""
    choose = "([old, new]) => { app.graph._nodes.find(n => n.widgets?.[0]?.value === old).widgets[0].value = new }"
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    assert "scsnet_alps.jpg" in page.evaluate(SOURCE)
    page.evaluate(choose, ["scsnet_alps.jpg", "scsnet_gone.jpg"])
    page.get_by_text("Connect a picture upstream").first.wait_for()
    page.wait_for_timeout(2000)
    assert sum("scsnet_gone.jpg" in url for url in asked) <= 4  # the loader's own preview asks too
    page.evaluate(choose, ["scsnet_gone.jpg", "scsnet_autumn.jpg"])
    page.wait_for_function(f"() => ({SOURCE})().includes('scsnet_autumn.jpg')")
    page.locator(STAGE).first.wait_for()


def test_behind_another_node_the_picker_shows_the_last_run(page, picker):
    page.evaluate("""() => { const flip = LiteGraph.createNode('ImageInvert'); app.graph.add(flip);
      const load = app.graph._nodes.find(n => n.widgets?.[0]?.value === 'scsnet_alps.jpg');
      load.connect(0, flip, 0); flip.connect(0, find('SCSColorizeReference'), 1) }""")
    run(page)
    loaded = "() => document.querySelector('.scsnet-points-stage img').naturalWidth === 360"
    page.wait_for_function(f"() => ({SOURCE})().includes('type=temp')")
    page.wait_for_function(loaded)
    # After the page was reloaded nothing is left of that, and a run takes everything from ComfyUI's cache.
    page.evaluate("() => { delete find('AttentionMapViz').scsnetSource }")
    page.get_by_text("Connect a picture upstream").first.wait_for()
    run(page)
    page.locator(STAGE).first.wait_for()
    assert "type=temp" in page.evaluate(SOURCE)
