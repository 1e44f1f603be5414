"""ComfyUI's own frontend in a real Chromium: how tests open it, and what they ask of it."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from workflows import read

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
SHOTS = os.environ.get("SCREENSHOTS")  # a folder that pictures of the pages are written to
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
READY = "() => window.app?.graph && window.app?.extensionManager"
# The events tell how a run ends in all frontends. find: a node by its type or title.
PREPARE = """() => { window.seen = []; window.over = null;
  app.api.addEventListener('progress', e => window.seen.push(e.detail.value / e.detail.max));
  app.api.addEventListener('execution_success', () => window.over = 'success');
  app.api.addEventListener('execution_error', e => window.over = e.detail.exception_message);
  app.api.addEventListener('execution_interrupted', () => window.over = 'interrupted');
  window.find = name => app.graph._nodes.find(n => n.type === name || n.title === name);
  window.widget = (node, name) => find(node).widgets.find(w => w.name === name);
  window.show = name => { const n = find(name); app.canvas.ds.scale = 1; app.canvas.centerOnNode(n); app.canvas.selectNode(n);
    app.canvas.setDirty(true, true) } }"""
# The button itself in newer frontends, a group of buttons around it in older ones.
RUN = 'button[data-testid="queue-button"], [data-testid="queue-button"] button[aria-label="Run"]'
INFO = '.selection-toolbox button:has(i[class*="info"]), [data-testid="info-button"]'


@contextmanager
def opened(browser, comfy, vue=False, language="en"):
    """The frontend, ready."""
    settings = {"Comfy.Locale": language, "Comfy.VueNodes.Enabled": vue}
    comfy.post("/settings", {"Comfy.TutorialCompleted": True, **settings})
    context = browser.new_context(
        viewport={"width": 1600, "height": 950}, locale="en-US", service_workers="block"
    )
    own = ("127.0.0.1", "localhost")
    context.route(
        lambda url: url.startswith("http") and urlsplit(url).hostname not in own,
        lambda route: route.abort(),
    )

    def answer_with_templates(route):
        answer = route.fetch()
        route.fulfill(**({"response": answer} if answer.ok else {"json": []}))

    # Without the optional package of ComfyUI's own templates the dialog never finishes loading in older frontends.
    context.route("**/templates/index.json", answer_with_templates)
    tab = context.new_page()
    tab.goto(comfy.url, wait_until="domcontentloaded")
    tab.wait_for_function(READY, timeout=60000)
    tab.wait_for_timeout(1500)
    tab.evaluate(PREPARE)
    try:
        yield tab
    finally:
        context.close()


def draws_elements(page):
    """Whether nodes are elements ("Nodes 2.0") and not drawn on the canvas."""
    return page.evaluate("() => LiteGraph.vueNodesMode === true")


def open_workflow(page, name, node=None):
    """Open a workflow without the dialog; bring the node of this type or title into view and select it."""
    page.evaluate("w => app.loadGraphData(w)", read(name))
    page.wait_for_timeout(500)
    if node:
        page.evaluate("name => show(name)", node)
        page.wait_for_timeout(600)


def run(page, seconds=120):
    """Press the Run button and wait for the end."""
    page.evaluate("() => { window.over = null; window.seen = [] }")
    page.locator(RUN).first.click()
    page.wait_for_function("() => window.over", timeout=seconds * 1000)
    assert page.evaluate("() => window.over") == "success"


def api_form(page):
    """The prompt that the frontend would send."""
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def shoot(page, name):
    """Where pictures are asked for, one of the page as it is."""
    if SHOTS:
        page.wait_for_timeout(1500)  # of its pictures
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(SHOTS, name.replace("/", "_") + ".png")))
