"""Every example workflow, opened in ComfyUI's own browser frontend and run from there; shortened, not changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import random_checkpoint, random_lora
from frontend import open_workflow, page_errors, queue_from_ui, red_nodes
from harness import Comfy, failure, outcome

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
# Widgets that only decide how long a run takes.
SHORT: dict[str, dict[str, Any]] = {
    "LoraFurnaceTraining": {"steps": 2, "sample_steps": 1, "sample_every_epochs": 0, "precision": "bf16"},
    "LoraFurnaceSamples": {"steps": 1, "every_epochs": 0},
    "LoraFurnaceDataset": {"width": 64, "height": 64},
    "LoraFurnaceStrengthTest": {"steps": 1, "width": 64, "height": 64, "strengths": "0, 1"},
    "LoraFurnaceStrengthTestTrainer": {"steps": 1, "strengths": "0, 1"},
    "LoraFurnaceBlockAnalysis": {"steps": 1, "width": 64, "height": 64, "sets": "M00, OUT03-OUT11"},
    "LoraFurnaceBlockAnalysisTrainer": {"steps": 1, "sets": "M00, OUT00-OUT04"},
    "KSampler": {"steps": 1},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "LoraFurnaceGrid": {"steps": 1, "width": 64, "height": 64, "y_values": "0, 1"},
    "LoraFurnaceGridTrainer": {"steps": 1, "y_values": "0, 1"},
    "LoraFurnaceAdvice": {"steps": 1, "strengths": "1"},
}
DRAWING = ("LoraFurnaceStrengthTest", "LoraFurnaceBlockAnalysis", "LoraFurnaceGrid", "LoraFurnaceAdvice")
SHORTEN = """(wanted) => {
  for (const node of window.app.graph.nodes)
    for (const [name, value] of Object.entries(wanted[node.type] ?? {})) {
      const widget = node.widgets.find((candidate) => candidate.name === name)
      if (!widget) throw new Error(`${node.type} has no widget ${name}`)
      widget.value = value
    }
}"""


@pytest.fixture(scope="module")
def model_files(comfy: Comfy) -> Iterator[None]:
    """What the workflows name: a random checkpoint and LoRA of real size, and a folder of pictures."""
    checkpoint = comfy.base / "models/checkpoints" / SD15
    checkpoint.symlink_to(random_checkpoint(comfy.base))
    pictures = comfy.base / "input/my_pictures"
    shutil.copytree(ROOT / "trainer/demo/dataset/10_zibu", pictures)
    lora = random_lora(comfy.base / "models/loras/my_lora.safetensors")
    yield
    lora.unlink()
    checkpoint.unlink()
    shutil.rmtree(pictures)


def test_there_are_workflows() -> None:
    names = {"block_training", "expert_settings", "first_lora", "sd15_block_weights", "sd15_grid", "sd15_lora", "strength_epoch_grid"}
    assert {path.stem for path in WORKFLOWS} == names
    assert all(path.with_suffix(".jpg").is_file() for path in WORKFLOWS)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_files_hold_what_every_frontend_reads(path: Path) -> None:
    """A null is nothing but a missing link: older frontends show a warning about others, and know no output of Preview Image."""
    nulls: set[str] = set()

    def look(value: Any, name: str) -> None:
        if value is None:
            nulls.add(name)
        for key, part in value.items() if isinstance(value, dict) else ():
            look(part, key)
        for part in value if isinstance(value, list) else ():
            look(part, name)

    workflow = json.loads(path.read_text(encoding="utf-8"))
    look(workflow, "")
    assert nulls <= {"link", "links"}
    assert not any(node["outputs"] for node in workflow["nodes"] if node["type"] == "PreviewImage")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow(comfy: Comfy, page: Page, model_files: None, path: Path) -> None:
    open_workflow(page, path)
    assert red_nodes(page) == []
    page.evaluate(SHORTEN, SHORT)
    entry = comfy.wait(queue_from_ui(page), timeout=1500)
    assert outcome(entry) == "success", failure(entry)
    for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
        if node["type"] in ("LoraFurnaceTrainLora", "PreviewImage", "SaveImage") or node["type"].startswith(DRAWING):
            images = entry["outputs"][str(node["id"])]["images"]
            assert images and all(min(comfy.view(image).size) >= 64 for image in images), node["type"]
    assert red_nodes(page) == []
    assert page_errors(page) == []
    assert "lora key not loaded" not in comfy.log()
