"""Block weights as bars on the node, in ComfyUI's own frontend: dragging writes the text, the text moves the bars."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from frontend import opened_page, page_errors, ui_to_api
from harness import Comfy

from trainer.block_weights import read_presets
from trainer.block_weights.rules import block_ratios
from trainer.errors import ConfigError
from trainer.families.block_vectors import part_values
from trainer.families.blocks import BLOCK_TABLES, STABLE_DIFFUSION

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ADD = """([type, widgets]) => {
  const graph = window.app.graph
  const node = LiteGraph.createNode(type)
  node.pos = [60, 60]
  graph.add(node)
  for (const [name, value] of Object.entries(widgets)) node.widgets.find((widget) => widget.name === name).value = value
  window.app.canvas.ds.scale = 1
  window.app.canvas.ds.offset = [0, 0]
  window.app.canvas.setDirty(true, true)
  return node.id
}"""
WIDGET = "(name) => window.app.graph.nodes.at(-1).widgets.find((widget) => widget.name === name).value"
SET = """([name, value]) => {
  const widget = window.app.graph.nodes.at(-1).widgets.find((candidate) => candidate.name === name)
  widget.value = value
  widget.callback?.(value)
}"""
VALUES = """() => {
  const blocks = [...document.querySelectorAll('.lf-block')]
  return Object.fromEntries(blocks.map((block) => [block.dataset.block, block.dataset.value]))
}"""
# `read` and `write` for texts over whole models, and over one part.
RULES = """async ([model, part, texts]) => {
  const { read, write } = await import('/extensions/lora-furnace/block_vector.js')
  const names = model.blocks.filter((block) => !part || block.part === part).map((block) => block.name)
  const filler = (name) => (model.text.includes(name) ? 1 : 0)
  const ofPart = { names, layouts: [names.map((name) => [name])], curves: model.curves[part] }
  const space = part ? ofPart : { names, layouts: model.layouts, filler }
  return texts.map((text) => {
    const found = read(text, space)
    if (!found) return null
    const again = write(found.values, space, found, '1')
    return [found.values, again, read(again, space).values, read(write(found.values, space, null, '1'), space).values]
  })
}"""
VECTORS = ["", "1", "0.5", " .25 ", "IN04=0.5", "M00 = 0, out03=2 IN04=-1", "BASE=0", "IN99=1", "IN04", "1,2", "1e3x"]
VECTORS += ["S00-S05=0.5, D18=0", "IN07-IN08=0", "IN04=", "1," * 15 + ","]
VECTORS += ["IN08-IN04=0.5", "IN04-IN05-IN06=0", "-IN04=0", "IN04-=0.5", "IN04=0.5=3", "IN04==1", "IN04=x, IN04=1", "="]
VECTORS += ["0x10", "IN04=0x10", "1_0", "IN04=1_000.2_5e-2", "1__0", "_1", "+.5E1", "5.", ".", "1e999", "inf", "constructor", "IN04=1e-7"]
VECTORS += ["IN04=0.12345, M00=0.5", "IN04=1.0001", "IN04 - IN05 = - 1", " ", "0.5 0.5", "IN04=0.5;M00=0"]
VECTORS += [",".join(str(number / 4) for number in range(count)) for count in (12, 16, 17, 20, 23, 25, 26, 61)]
PARTS = ["", "0.5", "cosine", "sine+.25", "Linear - 0.5", "reverse_linear", "zeros+1", "IN04=0", "1,,1,1,1,1,1,1,1,1,1,.5"]
PARTS += ["1,1", "cosin", "sine+x", "sine+", "sine+0x1", "sine.5", "zeros+1e1", "constructor", "__proto__", " "]
PARTS += ["IN08-IN04=0", "IN04-M00=0"]


def bars(page: Page) -> dict[str, float]:
    return {name: float(value) for name, value in page.evaluate(VALUES).items()}


def drag(page: Page, block: str, value: float, to: tuple[str, float] | None = None) -> None:
    """Press on a block's bar at a height, and go on to another one; 1.5 is the top."""
    for number, (name, height) in enumerate([(block, value), *([to] if to else [])]):
        box = page.locator(f'.lf-block[data-block="{name}"] .lf-area').bounding_box()
        assert box
        place = (box["x"] + box["width"] / 2, box["y"] + box["height"] * (1 - height / 1.5))
        page.mouse.move(*place, steps=3)
        if not number:
            page.mouse.down()
    page.mouse.up()


def screenshot(page: Page, name: str) -> None:
    """Kept where BLOCK_BARS_SCREENS names a folder."""
    if folder := os.environ.get("BLOCK_BARS_SCREENS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.fixture(params=[False, True], ids=["classic nodes", "Nodes 2.0"])
def page(request: pytest.FixtureRequest, browser: Browser, comfy: Comfy):
    if request.param and comfy.get("/system_stats")["system"]["comfyui_version"].startswith("0.3."):
        pytest.skip("the frontend of 2025, where Nodes 2.0 were an experiment, does not show the bars in them")
    with opened_page(browser, comfy, {"Comfy.VueNodes.Enabled": request.param}) as opened:
        yield opened
        assert page_errors(opened) == []


def test_the_browser_reads_texts_as_the_trainer_does(comfy: Comfy, browser: Browser) -> None:
    options = comfy.object_info("LoraFurnaceLoadLoraBlockWeight")["input"]["required"]["vector"][1]["block_bars"]
    tables = {table.title: table for table in BLOCK_TABLES}
    with opened_page(browser, comfy) as page:
        for model in options["models"]:
            table = tables[model["title"]]
            for text, found in zip(VECTORS, page.evaluate(RULES, [model, "", VECTORS]), strict=True):
                try:
                    expected = block_ratios(text, table, read_presets(), 0)
                except ConfigError:
                    expected = None
                assert (found and found[0]) == expected, (table.title, text)
                if found:
                    _, again, *values = found
                    assert values == [expected, expected]
                    assert block_ratios(again, table, read_presets(), 0) == expected
        for text, found in zip(PARTS, page.evaluate(RULES, [options["models"][0], "down", PARTS]), strict=True):
            try:
                expected = dict.fromkeys(STABLE_DIFFUSION.parts["down"], 1.0)
                expected |= part_values(text, STABLE_DIFFUSION, "down", "down") if text.strip() else {}
            except ConfigError:
                expected = None
            assert (found and found[0]) == (expected and pytest.approx(expected, abs=1e-3)), text


def test_a_drag_rounds_no_other_block(page: Page) -> None:
    page.evaluate(ADD, ["LoraFurnaceBlockWeights", {"weights": "IN04=0.12345, M00=0.5"}])
    page.wait_for_selector(".lf-block")
    drag(page, "M00", 0.6)
    assert page.evaluate(WIDGET, "weights") == "IN04=0.12345, M00=0.6"
    page.evaluate(SET, ["weights", ""])
    page.evaluate(SET, ["down", "sine+.12345"])
    drag(page, "IN11", 0.5)
    assert page.evaluate(WIDGET, "down").split(", ")[:2] == ["0.12345", "0.26545"]  # a curve's own points have three decimals


def test_training_bars(page: Page) -> None:
    page.evaluate(ADD, ["LoraFurnaceBlockWeights", {}])
    page.wait_for_selector(".lf-block")
    assert bars(page) == dict.fromkeys([name for names in STABLE_DIFFUSION.parts.values() for name in names], 1.0)
    drag(page, "IN04", 0.5)
    assert page.evaluate(WIDGET, "down") == "IN04=0.5"
    drag(page, "M00", 0.25)
    drag(page, "OUT03", 0.75, to=("OUT04", 0.75))
    assert (page.evaluate(WIDGET, "mid"), page.evaluate(WIDGET, "up")) == ("0.25", "OUT03-OUT04=0.75")
    page.evaluate(SET, ["up", "cosine+.25"])
    assert bars(page)["OUT00"] == 1.25 and bars(page)["OUT11"] == 0.25
    page.select_option(".lf-bars-curves", "down:linear")
    assert page.evaluate(WIDGET, "down") == "linear" and bars(page)["IN11"] == 1 and bars(page)["IN00"] == 0
    screenshot(page, "training")
    page.evaluate(SET, ["up", ",".join(["0.5"] * 9)])
    page.evaluate(SET, ["down", ""])
    assert len(bars(page)) == 9 + 3 + 9  # only SDXL has nine output blocks
    page.evaluate(SET, ["weights", ",".join(["0.5"] * 26)])
    assert bars(page)["BASE"] == 0.5
    drag(page, "BASE", 1.0)
    assert page.evaluate(WIDGET, "weights") == ", ".join(["1"] + ["0.5"] * 25)
    page.evaluate(SET, ["weights", "nonsense=1"])
    assert page.locator(".lf-bars-strip.off").count() == 1
    (prompt,) = ui_to_api(page).values()
    assert "blocks" not in prompt["inputs"] and prompt["inputs"]["weights"] == "nonsense=1"


def test_loading_bars(page: Page) -> None:
    page.evaluate(ADD, ["LoraFurnaceLoadLoraBlockWeight", {}])
    page.wait_for_selector(".lf-block")
    assert len(bars(page)) == 26
    seventeen = ["1"] * 17
    page.locator("textarea").first.fill(", ".join(seventeen))
    assert bars(page)["IN00"] == 0 and bars(page)["IN01"] == 1
    drag(page, "IN01", 0.5)
    seventeen[1] = "0.5"
    assert page.locator("textarea").first.input_value() == page.evaluate(WIDGET, "vector") == ", ".join(seventeen)
    page.evaluate(SET, ["preset", "INALL"])
    assert bars(page)["IN04"] == 1 and bars(page)["OUT03"] == 0
    drag(page, "M00", 1.0)
    assert page.evaluate(WIDGET, "preset") == "vector" and page.evaluate(WIDGET, "vector").split(", ")[6:9] == ["1", "1", "0"]
    page.select_option(".lf-bars-models", label="Flux")
    page.evaluate(SET, ["vector", "1"])
    assert len(bars(page)) == 61
    screenshot(page, "flux")
    page.evaluate(SET, ["vector", "1,1,0.5,0.5,1,1,1,0,0,1.2,1,1"])
    assert bars(page)["M02"] == 1 and bars(page)["IN05"] == 0.5  # only SDXL has a list of twelve
    screenshot(page, "loading")


def test_a_saved_workflow_has_the_text_alone(page: Page) -> None:
    page.evaluate(ADD, ["LoraFurnaceBlockWeights", {"down": "IN04=0.5", "up": "sine"}])
    page.wait_for_selector(".lf-block")
    saved = page.evaluate("() => window.app.graph.serialize()")
    assert len(saved["nodes"][0]["widgets_values"]) == 9
    page.evaluate("(saved) => window.app.loadGraphData(saved)", saved)
    page.wait_for_function("() => document.querySelector('.lf-block[data-block=IN04]')?.dataset.value === '0.5'")
    assert bars(page)["OUT00"] == 0 and page.evaluate(WIDGET, "up") == "sine"
