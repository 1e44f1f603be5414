"""ComfyUI's own frontend in a real Chromium: how tests open it, and what they ask of it."""

from __future__ import annotations

import os
import shutil
import urllib.parse
from contextlib import contextmanager
from pathlib import Path

from workflows import read

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
SHOTS = os.environ.get("SCREENSHOTS")  # a folder that pictures of the pages are written to
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
READY = "() => window.app?.graph && window.app?.extensionManager"
# Ids are numbers in older frontends and strings in newer ones; the events say how a run ends in all of them.
FOLLOW = """() => { window.seen = []; window.over = null;
  app.api.addEventListener('progress', e => window.seen.push(e.detail.value / e.detail.max));
  app.api.addEventListener('execution_success', () => window.over = 'success');
  app.api.addEventListener('execution_error', e => window.over = e.detail.exception_message);
  app.api.addEventListener('execution_interrupted', () => window.over = 'interrupted'); }"""
# The button itself in newer frontends, a group of buttons around it in older ones.
RUN = 'button[data-testid="queue-button"], [data-testid="queue-button"] button[aria-label="Run"]'


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
    context.route("**/templates/index.json", own_templates)
    tab = context.new_page()
    tab.goto(comfy.url, wait_until="domcontentloaded")
    tab.wait_for_function(READY, timeout=60000)
    tab.wait_for_timeout(1500)
    try:
        yield tab
    finally:
        context.close()


def own_templates(route):
    answer = route.fetch()
    if answer.ok:
        route.fulfill(response=answer)
    else:
        route.fulfill(json=[])


def open_workflow(page, name):
    """Without the dialog."""
    page.evaluate("w => app.loadGraphData(w)", read(name))
    page.wait_for_timeout(500)


def run(page, seconds=120):
    """Press the Run button and wait for the end."""
    page.evaluate("() => { window.over = null; window.seen = [] }")
    page.locator(RUN).first.click()
    page.wait_for_function("() => window.over", timeout=seconds * 1000)
    assert page.evaluate("() => window.over") == "success"


def shoot(page, name):
    """Where pictures are asked for, one of the page as it is."""
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(SHOTS, name.replace("/", "_") + ".png")))
