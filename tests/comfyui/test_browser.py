"""The pack in ComfyUI's own frontend, in a real Chromium: templates, Run, previews, numbers, bypass, help, Chinese."""

import pytest
from browser import INFO, api_form, draws_elements, open_workflow, opened, run, shoot
from conftest import PACK, ROOT, SAMPLES
from server import Server
from workflows import WORKFLOWS, inputs_of, read

AUTO = "Colorize a photo and enlarge it 4 times"
REFERENCE = "Colorize with the colours of another photo"
ATTENTION = "See where the colours came from"
HINTS = "Say which colour goes where"
MISSING = (
    "() => app.graph._nodes.filter(n => !LiteGraph.registered_node_types[n.type]).map(n => n.type)"
)
# Drawn on the canvas a node has its pictures; drawn as an element, that has them.
SHOWN = """() => app.graph._nodes.filter(n => n.type === 'PreviewImage' && [...(n.imgs ?? []),
  ...document.querySelectorAll(`[data-node-id="${n.id}"] img`)].some(i => i.naturalWidth)).length"""

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_template_opens_runs_and_shows_its_pictures(page, comfy, name):
    for sample in SAMPLES.iterdir():  # the user's machine has none of them: the pack brings them
        (comfy.base / "input" / sample.name).unlink(missing_ok=True)
    comfy.forget()
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(PACK, exact=True).last.click()
    card = page.locator(f'[data-testid="template-workflow-{name}"]')
    card.scroll_into_view_if_needed()
    page.wait_for_function(
        "name => [...document.querySelectorAll(`[data-testid='template-workflow-${name}'] img`)].some(i => i.naturalWidth)",
        arg=name,
    )
    page.wait_for_timeout(500)
    shoot(page, f"dialog-{name}")
    card.click()
    kinds = [node["type"] for node in read(name)["nodes"]]
    page.wait_for_function(
        "([first, count]) => app.graph._nodes.length === count && app.graph._nodes[0].type === first",
        arg=[kinds[0], len(kinds)],
    )
    page.wait_for_timeout(1000)
    assert page.evaluate(MISSING) == []
    run(page, 300)
    assert page.evaluate("() => window.seen.length") > 2, "no progress was shown"
    page.wait_for_function(f"({SHOWN})() === {kinds.count('PreviewImage')}", timeout=60000)
    inputs = [key for node in api_form(page).values() for key in node["inputs"]]
    assert not any("picker" in key for key in inputs), "the picker is no input"


NUMBERS = {
    "scale": "2.37", "width": "1234", "height": "777", "megapixels": "1.25", "strength": "0.85", "working_size": "252",
    "window_x": "0.125", "window_y": "0.25", "window_width": "0.375", "window_height": "0.625", "overlay": "0.35",
}  # fmt: skip


def enter(page, node, name, text):
    """Click a number's field, type (nothing: leave it as it is), press Enter."""
    if draws_elements(page):
        number = page.evaluate("name => find(name).id", node)
        field = page.locator(f"[data-node-id='{number}']").first.get_by_label(name, exact=True)
        # An element for dragging lies over the field and hands the click on.
        field.locator("input").click(force=True)
        if text:
            page.keyboard.press("Control+a")
            page.keyboard.type(text)
    else:
        place = page.evaluate(
            """([node, name]) => { const n = find(node), w = widget(node, name), c = app.canvas,
              box = c.canvas.getBoundingClientRect(),
              [x, y] = c.ds.convertOffsetToCanvas([n.pos[0] + n.size[0] / 2, n.pos[1] + (w.last_y ?? w.y) + 10]);
              return [box.left + x, box.top + y] }""",
            [node, name],
        )
        # A second click could open a second dialog, which would take the Enter.
        page.mouse.click(*place)
        field = page.locator(".graphdialog input").first
        field.wait_for()
        if text:
            field.fill(text)
    page.keyboard.press("Enter")
    page.wait_for_timeout(200)


@pytest.mark.parametrize(
    ("workflow", "node"),
    [
        (AUTO, "SCSColorizeAuto"),
        (AUTO, "SCSContinuousUpscale"),
        (ATTENTION, "SCSColorizeReference"),
        (ATTENTION, "AttentionMapViz"),
    ],
)
def test_typed_numbers_keep_their_decimals(page, comfy, workflow, node):
    """In every number field of the pack, also when Enter is pressed without typing."""
    declared = inputs_of(comfy.get(f"/object_info/{node}")[node])
    open_workflow(page, workflow, node)
    for name in [name for name, (kind, _) in declared.items() if kind in ("INT", "FLOAT")]:
        if draws_elements(page) and declared[name][1].get("advanced"):
            continue  # folded away
        for text in (NUMBERS[name], ""):
            enter(page, node, name, text)
            value = page.evaluate("([node, name]) => widget(node, name).value", [node, name])
            assert value == float(NUMBERS[name]), name


def test_a_bypassed_node_hands_on_the_photo(page):
    for workflow, node, output, taker in (
        (REFERENCE, "SCSColorizeReference", "images", "PreviewImage"),
        (AUTO, "SCSColorizeAuto", "images", "PreviewImage"),
        (HINTS, "SCSColorHints", "reference", "SCSColorizeReference"),
    ):
        open_workflow(page, workflow)
        photo = page.evaluate(
            "name => { const n = find(name); n.mode = 4; return n.getInputNode(n.inputs.findIndex(i => i.name === 'image')).id }",
            node,
        )
        nodes = api_form(page).values()
        taken = [n["inputs"].get(output) for n in nodes if n["class_type"] == taker]
        assert [str(photo), 0] in taken


def test_in_chinese(browser, comfy):
    words = comfy.get("/i18n")["zh"]["nodeDefs"]
    with opened(browser, comfy, language="zh") as tab:
        for workflow, node in ((AUTO, "SCSColorizeAuto"), (HINTS, "SCSColorHints")):
            open_workflow(tab, workflow, node)
            assert tab.evaluate("name => find(name).title", node) == words[node]["display_name"]
            shown = tab.evaluate(
                "name => [...find(name).inputs.map(i => i.label ?? i.localized_name), ...find(name).widgets.map(w => w.label)]",
                node,
            )
            assert {item["name"] for item in words[node]["inputs"].values()} <= set(shown)
            tab.locator(INFO).first.click()
            tab.get_by_text("何时使用").first.wait_for()  # of the help page
            shoot(tab, f"chinese-{node}")
        tab.get_by_text("在此处使用该颜色").first.wait_for()
        open_workflow(tab, ATTENTION)
        tab.get_by_text("右键").first.wait_for()


def test_two_copies_of_the_pack_do_not_stop_the_frontend(browser, archive, base, tmp_path):
    copies = {PACK: ROOT, "ComfyUI SCSNet-0.1.0": archive}
    with Server(tmp_path, copies) as server, opened(browser, server) as tab:
        open_workflow(tab, ATTENTION)
        tab.wait_for_timeout(1500)
        assert tab.evaluate(MISSING) == []
        assert tab.locator(".scsnet-points").count() == 1
