"""Proves the harness itself, with ComfyUI's own nodes only: what is fine runs, what is broken is found."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from frontend import open_workflow, opened_page, page_errors, queue_from_ui, red_nodes, ui_to_api
from harness import Comfy, ComfyError, Json, PromptRejected, outcome, parse_message
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RED = 0xFF0000


def image_prompt(color: int = RED, output: str = "SaveImage") -> Json:
    image = {"width": 64, "height": 48, "batch_size": 1, "color": color}
    inputs: Json = {"images": ["1", 0]} | ({"filename_prefix": "smoke"} if output == "SaveImage" else {})
    return {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": output, "inputs": inputs},
    }


def image_workflow(upscale_method: str = "nearest-exact") -> Json:
    """EmptyImage → ImageScale → PreviewImage in the format that the frontend saves."""
    nodes: list[Json] = [
        {"id": 1, "type": "EmptyImage", "widgets_values": [64, 48, 1, RED]},
        {"id": 2, "type": "ImageScale", "widgets_values": [upscale_method, 32, 24, "disabled"]},
        {"id": 3, "type": "PreviewImage"},
    ]
    for place, node in enumerate(nodes):
        node |= {"pos": [100 + 400 * place, 100], "size": [300, 200], "flags": {}, "mode": 0, "properties": {}}
        node |= {"order": place, "inputs": [], "outputs": []}
    nodes[0]["outputs"] = [{"name": "IMAGE", "type": "IMAGE", "links": [1]}]
    nodes[1]["inputs"] = [{"name": "image", "type": "IMAGE", "link": 1}]
    nodes[1]["outputs"] = [{"name": "IMAGE", "type": "IMAGE", "links": [2]}]
    nodes[2]["inputs"] = [{"name": "images", "type": "IMAGE", "link": 2}]
    links = [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]]
    ids = {"last_node_id": 3, "last_link_id": 2}
    return {"nodes": nodes, "links": links, "groups": [], "config": {}, "extra": {}, "version": 0.4} | ids


def test_prompt_over_http(comfy: Comfy) -> None:
    outputs = comfy.run(image_prompt())
    image = comfy.view(outputs["2"]["images"][0])
    assert image.size == (64, 48)
    assert image.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert list((comfy.base / "output").glob("smoke*.png"))


def test_object_info(comfy: Comfy) -> None:
    assert "EmptyImage" in comfy.object_info()
    assert comfy.object_info("EmptyImage")["output"] == ["IMAGE"]


def test_invalid_prompt_is_rejected(comfy: Comfy) -> None:
    prompt = image_prompt()
    prompt["1"]["inputs"]["width"] = -5
    with pytest.raises(PromptRejected, match="width"):
        comfy.queue(prompt)


def test_events_reach_the_listener(comfy: Comfy) -> None:
    with comfy.listen() as (client_id, events):
        prompt_id = comfy.queue(image_prompt(0x00FF00, "PreviewImage"), client_id)
        executed = events.wait_for("executed", prompt_id=prompt_id, node="2")
        events.wait_for("execution_success", prompt_id=prompt_id)
    assert executed.data["output"]["images"][0]["type"] == "temp"
    assert outcome(comfy.wait(prompt_id)) == "success"


def test_missing_event_names_what_was_seen(comfy: Comfy) -> None:
    with comfy.listen() as (_, events), pytest.raises(ComfyError, match="status"):
        events.wait_for("no_such_kind", timeout=0.1)


def test_failing_node_is_named(comfy: Comfy) -> None:
    pattern: Json = {"string": "a", "regex_pattern": "(", "replace": "b"}
    prompt: Json = {
        "1": {"class_type": "RegexReplace", "inputs": pattern},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    with pytest.raises(ComfyError, match="RegexReplace #1: missing \\), unterminated subpattern"):
        comfy.run(prompt)


def test_text_message_is_decoded() -> None:
    event = parse_message(b"\0\0\0\3" + b"\0\0\0\2" + b"12" + "Schritt 1 ✓".encode())
    assert (event.kind, event.data) == ("text", {"node": "12", "text": "Schritt 1 ✓"})


def test_preview_messages_are_decoded() -> None:
    picture = BytesIO()
    Image.new("RGB", (8, 4)).save(picture, "JPEG")
    plain = parse_message(b"\0\0\0\1" + b"\0\0\0\1" + picture.getvalue())
    metadata = b'{"node_id": "7"}'
    named = parse_message(b"\0\0\0\4" + len(metadata).to_bytes(4, "big") + metadata + picture.getvalue())
    assert (plain.kind, named.kind, named.data) == ("preview", "preview", {"node_id": "7"})
    assert plain.image and named.image and plain.image.size == named.image.size == (8, 4)


def test_interruption_is_told_from_failure() -> None:
    status: Json = {"status_str": "error", "messages": [["execution_start", {}], ["execution_interrupted", {}]]}
    assert outcome({"status": status}) == "interrupted"
    assert outcome({"status": status | {"messages": [["execution_start", {}]]}}) == "error"


@pytest.mark.parametrize("vue_nodes", [False, True], ids=["classic nodes", "Nodes 2.0"])
def test_workflow_through_the_browser(comfy: Comfy, browser: Browser, vue_nodes: bool) -> None:
    with opened_page(browser, comfy, {"Comfy.VueNodes.Enabled": vue_nodes}) as page:
        open_workflow(page, image_workflow())
        assert red_nodes(page) == []
        assert ui_to_api(page)["2"]["inputs"]["upscale_method"] == "nearest-exact"
        entry = comfy.wait(queue_from_ui(page))
        assert outcome(entry) == "success"
        assert comfy.view(entry["outputs"]["3"]["images"][0]).size == (32, 24)
        assert red_nodes(page) == []
        assert page_errors(page) == []


def test_api_format_opens_too(page: Page) -> None:
    open_workflow(page, image_prompt())
    assert red_nodes(page) == []
    sent = {node["class_type"]: node["inputs"] for node in ui_to_api(page).values()}
    assert sent["EmptyImage"] == image_prompt()["1"]["inputs"]


def test_unknown_node_is_red(page: Page) -> None:
    workflow = image_workflow()
    workflow["nodes"][1]["type"] = "NoSuchNode"
    open_workflow(page, workflow)
    assert ("2", "unknown node type") in [(red.node, red.problem) for red in red_nodes(page)]
    with pytest.raises(PromptRejected, match="class_type"):
        queue_from_ui(page)


def test_broken_values_and_links_are_red(page: Page) -> None:
    workflow = image_workflow(upscale_method="no-such-method")
    workflow["nodes"][0]["widgets_values"][0] = "wide"
    workflow["nodes"][2]["inputs"][0]["link"] = None
    workflow["nodes"][1]["outputs"][0]["links"] = None
    workflow["links"].pop()
    open_workflow(page, workflow)
    problems = {red.node: red.problem for red in red_nodes(page)}
    assert problems["1"].startswith('width: "wide" is not')
    assert problems["2"].startswith('upscale_method: "no-such-method" is not one of ["nearest-exact"')
    assert problems["3"] == "images: the required input is not connected"


def test_server_refusal_is_red(page: Page) -> None:
    open_workflow(page, image_workflow(upscale_method="no-such-method"))
    with pytest.raises(PromptRejected, match="no-such-method"):
        queue_from_ui(page)
    assert any(red.node == "2" and "not in list" in red.problem for red in red_nodes(page))
