"""Drives ComfyUI's real browser frontend: open a workflow, find what is red on it, press Run."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import Comfy, Json, PromptRejected

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
INSPECT_GRAPH = Path(__file__).with_name("inspect_graph.js").read_text(encoding="utf-8")
READY = """() => {
    const manager = window.app?.extensionManager
    return Boolean(manager?.workflow?.activeWorkflow && window.app.canvas && !document.querySelector('.p-blockui-mask'))
}"""
COLLECT_ERRORS = """
window.__errors = []
const collect = (error) => window.__errors.push(String(error?.stack ?? error))
window.addEventListener('error', (event) => collect(event.error ?? event.message))
window.addEventListener('unhandledrejection', (event) => collect(event.reason))
"""
# What dropping a file on the canvas calls; it takes the UI format and the API format alike.
OPEN_FILE = """async ([name, text]) => {
    await window.app.handleFile(new File([text], name, { type: 'application/json' }))
}"""
LOAD_TIMEOUT_MS = 90_000


@dataclass(frozen=True)
class Red:
    """One thing wrong with the open workflow; `node` and `type` are empty when it concerns no single node."""

    node: str
    type: str
    problem: str


def chromium_path() -> str | None:
    """The browser to use: $CHROMIUM_PATH, or the first one on the PATH."""
    return os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


def why_no_browser() -> str | None:
    """What is missing for the browser tests, or None when they can run."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed (pip install playwright; no browser download is needed)"
    if chromium_path() is None:
        return "no Chromium found; install one or set CHROMIUM_PATH"
    return None


@contextmanager
def launched_browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=CHROMIUM_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened_page(browser: Browser, comfy: Comfy, settings: Json | None = None) -> Iterator[Page]:
    """ComfyUI's page on an empty canvas, with nothing remembered from earlier pages but the given settings.

    Useful settings: "Comfy.VueNodes.Enabled" (Nodes 2.0), "Comfy.Locale".
    """
    comfy.write_settings(settings or {})
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    context.add_init_script(COLLECT_ERRORS)
    page = context.new_page()
    try:
        page.goto(comfy.url, timeout=LOAD_TIMEOUT_MS)
        page.wait_for_function(READY, timeout=LOAD_TIMEOUT_MS)
        page.wait_for_load_state("networkidle")  # it still looks for the models of its default workflow
        page.evaluate("() => window.app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
        yield page
    finally:
        context.close()


def open_workflow(page: Page, workflow: Json | Path) -> None:
    """Opens a workflow as if its file had been dropped on the canvas."""
    name = workflow.name if isinstance(workflow, Path) else "workflow.json"
    text = workflow.read_text(encoding="utf-8") if isinstance(workflow, Path) else json.dumps(workflow)
    page.evaluate(OPEN_FILE, [name, text])
    page.wait_for_function(READY)
    page.wait_for_timeout(500)  # missing files are looked for after the graph is shown


def red_nodes(page: Page) -> list[Red]:
    """Unknown node types, impossible widget values, broken links, refusals, warnings on screen; empty is good."""
    found = [Red(**problem) for problem in page.evaluate(INSPECT_GRAPH)]
    return list(dict.fromkeys(found))  # the frontend reports some twice


def ui_to_api(page: Page) -> Json:
    """The API-format prompt which the frontend would send for the open workflow."""
    return page.evaluate("async () => (await window.app.graphToPrompt()).output")


def queue_from_ui(page: Page) -> str:
    """Closes what covers the canvas, presses Run, returns the prompt id; raises PromptRejected with the refusal."""

    def is_prompt(response: Any) -> bool:
        return response.request.method == "POST" and response.url.split("?")[0].endswith("/prompt")

    close_dialogs(page)
    run = page.locator("button[data-testid=queue-button], [data-testid=queue-button] button").first
    with page.expect_response(is_prompt, timeout=30_000) as reply:
        run.click(timeout=10_000)
    answer = reply.value.json()
    if not reply.value.ok or answer.get("node_errors"):
        page.wait_for_timeout(300)  # lets the frontend mark the nodes
        raise PromptRejected(answer)
    return answer["prompt_id"]


def close_dialogs(page: Page) -> None:
    """Older frontends lay a dialog over the canvas when a workflow has missing nodes."""
    dialogs = page.locator("[role=dialog]:visible")
    for _ in range(5):
        if not dialogs.count():
            return
        page.keyboard.press("Escape")
        page.wait_for_timeout(300)


def page_errors(page: Page, source: str = "/extensions/") -> list[str]:
    """Uncaught JavaScript errors whose stack passes through node packs' code; source="" adds the frontend's own."""
    return [error for error in page.evaluate("() => window.__errors") if source in error]
