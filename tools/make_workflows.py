"""Builds example_workflows/*.json in ComfyUI's own browser frontend, so that they have exactly the form that it saves.

    python tools/make_workflows.py COMFYUI_CHECKOUT [first_lora …] [--run] [--screens FOLDER]

The preview picture is the graph; with --run it is the graph after a whole run, which wants the model files that are named.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "comfyui"))

from checkpoints import random_lora  # noqa: E402
from frontend import launched_browser, open_workflow, opened_page, queue_from_ui, red_nodes, ui_to_api  # noqa: E402
from harness import Comfy, outcome, running_comfy  # noqa: E402
from PIL import Image  # noqa: E402
from workflow_grids import GRIDS  # noqa: E402
from workflow_nodes import SD15, SD15_URL, demo_job, node  # noqa: E402
from workflow_notes import BLOCKS_NOTE, EXPERT_NOTE, FIRST_NOTE, LBW_NOTE, SD15_NOTE  # noqa: E402

FOLDER = ROOT / "example_workflows"
OBJECT = "object (Object · 物品)"  # the entry of Load Preset
# The demo's captions are sentences, and its model is small enough for high learning rates.
OWN_CHANGES = (
    "optimizer.text_encoder_lr=0.0005\nmethod.rank=32\nmethod.alpha=32\ndataset.captions.shuffle=false\ndataset.captions.keep_tokens=0"
)
MY_LORA = "my_lora.safetensors"


WORKFLOWS: dict[str, list[dict[str, Any]]] = {
    "first_lora": [
        node(1, "MarkdownNote", 0, (420, 560), {"": FIRST_NOTE}, title="Read me · 请先阅读"),
        *demo_job(
            "zibu",
            520,
            sample_prompts="a big zibu on a blue background\nzibu on green grass",
            sample_every_epochs=3,
            sample_cfg=3,
            validation_every_epochs=5,
        ),
        node(6, "PreviewImage", 850, (380, 300), links={"images": (5, "loss_curve")}, title="Loss curve · 损失曲线"),
        node(
            7,
            "LoraFurnaceStrengthTestTrainer",
            1280,
            (560, 760),
            {
                "strengths": "0-1.2/0.3",
                "prompts": "a big zibu on a blue background\nzibu on green grass",
                "cfg": 3,
                "precision": "fp32",
            },
            {"base": (2, "base"), "loras": (5, "lora_names")},
        ),
    ],
    "sd15_lora": [
        node(1, "MarkdownNote", 0, (420, 640), {"": SD15_NOTE}, title="Read me · 请先阅读"),
        node(2, "LoraFurnaceBaseModel", 460, (340, 130), {"checkpoint": SD15}),
        node(3, "LoraFurnaceDataset", 460, (340, 310), {"folder": "input/my_pictures", "repeats": 10}),
        node(4, "LoraFurnaceLora", 460, (340, 160), {}),
        node(
            5,
            "LoraFurnaceTraining",
            840,
            (340, 640),
            {"epochs": 10, "unet_lr": 0.0003, "text_encoder_lr": 0.0001, "sample_prompts": "sks cat, photo\nsks cat in a red hat, photo"},
        ),
        node(
            6,
            "LoraFurnaceTrainLora",
            1230,
            (380, 520),
            {"lora_name": "my_lora"},
            {"base": (2, "base"), "dataset": (3, "dataset"), "lora": (4, "lora"), "training": (5, "training")},
        ),
        node(7, "PreviewImage", 1230, (380, 300), links={"images": (6, "loss_curve")}, title="Loss curve · 损失曲线"),
        node(8, "CheckpointLoaderSimple", 840, (340, 110), {"ckpt_name": SD15}, models=[(SD15, SD15_URL, "checkpoints")]),
        node(
            9,
            "LoraFurnaceStrengthTest",
            1660,
            (560, 760),
            {"strengths": "0.4, 0.6, 0.8, 1.0", "prompts": "sks cat, photo\nsks cat in a red hat, photo"},
            {"model": (8, "MODEL"), "clip": (8, "CLIP"), "vae": (8, "VAE"), "loras": (6, "lora_names")},
        ),
    ],
    "expert_settings": [
        node(1, "MarkdownNote", 0, (420, 700), {"": EXPERT_NOTE}, title="Read me · 请先阅读"),
        node(2, "LoraFurnaceDemoBase", 460, (340, 110), {"batch_size": 8}),
        node(3, "LoraFurnaceCaptions", 460, (340, 300), {"dropout": 0.1}, {"dataset": (2, "dataset")}),
        node(4, "LoraFurnaceAugmentation", 460, (340, 150), {"flip": True}, {"dataset": (3, "dataset")}),
        node(5, "LoraFurnaceLora", 460, (340, 160), {"rank": 32, "alpha": 32}),
        node(
            6,
            "LoraFurnaceTraining",
            840,
            (340, 640),
            {"epochs": 15, "precision": "fp32", "save_every_epochs": 3, "validation_every_epochs": 5, "ema": 0.98},
        ),
        node(
            7,
            "LoraFurnaceOptimizer",
            1220,
            (340, 200),
            {"lr": 0.0015, "text_encoder_lr": 0.0005, "optimizer_args": "weight_decay=0.02 betas=0.9,0.99"},
            {"training": (6, "training")},
        ),
        node(8, "LoraFurnaceSchedule", 1220, (340, 130), {"warmup": 0.1}, {"training": (7, "training")}),
        node(9, "LoraFurnaceLossNoise", 1220, (340, 300), {"loss": "huber", "noise_offset": 0.05}, {"training": (8, "training")}),
        node(
            10,
            "LoraFurnaceSamples",
            1220,
            (340, 300),
            {"prompts": "a big zibu on a blue background\nzibu on green grass", "every_epochs": 3, "cfg": 3},
            {"training": (9, "training")},
        ),
        node(
            11,
            "LoraFurnaceLoadPreset",
            1600,
            (380, 300),
            {"preset": OBJECT, "changes": OWN_CHANGES},
            {"base": (2, "base"), "dataset": (4, "dataset"), "lora": (5, "lora"), "training": (10, "training")},
        ),
        node(12, "PreviewAny", 1600, (380, 330), links={"source": (11, "notes")}, title="Preset notes · 预设说明"),
        node(
            13,
            "LoraFurnaceSaveConfiguration",
            1600,
            (380, 200),
            {"file_name": "zibu_expert", "lora_name": "zibu_expert"},
            {"base": (11, "base"), "dataset": (11, "dataset"), "lora": (11, "lora"), "training": (11, "training")},
        ),
        node(
            14,
            "LoraFurnaceTrainLora",
            2020,
            (380, 520),
            {"lora_name": "zibu_expert"},
            {
                "base": (11, "base"),
                "dataset": (11, "dataset"),
                "lora": (11, "lora"),
                "training": (11, "training"),
                "held_out": (2, "held_out"),
            },
        ),
        node(15, "PreviewImage", 2020, (380, 300), links={"images": (14, "loss_curve")}, title="Loss curve · 损失曲线"),
        node(
            16,
            "LoraFurnaceStrengthTestTrainer",
            2440,
            (560, 760),
            {"strengths": "0-1.2/0.3", "prompts": "a big zibu on a blue background\nzibu on green grass", "cfg": 3, "precision": "fp32"},
            {"base": (11, "base"), "loras": (14, "lora_names")},
        ),
    ],
    "block_training": [
        node(1, "MarkdownNote", 0, (420, 560), {"": BLOCKS_NOTE}, title="Read me · 请先阅读"),
        node(2, "LoraFurnaceDemoBase", 460, (340, 110), {"batch_size": 8}),
        node(3, "LoraFurnaceLora", 460, (340, 160), {"rank": 16, "alpha": 16}),
        node(4, "LoraFurnaceBlockWeights", 460, (420, 460), {"down": "zeros", "up": "OUT00-OUT01=0.5"}, {"lora": (3, "lora")}),
        node(
            5,
            "LoraFurnaceTraining",
            930,
            (340, 640),
            {
                "epochs": 10,
                "precision": "fp32",
                "lr": 0.002,
                "text_encoder_lr": 0.001,
                "save_every_epochs": 0,
                "sample_prompts": "zibu on a blue background",
                "sample_every_epochs": 2,
                "sample_cfg": 5,
            },
        ),
        node(
            6,
            "LoraFurnaceTrainLora",
            1310,
            (380, 520),
            {"lora_name": "zibu_blocks"},
            {"base": (2, "base"), "dataset": (2, "dataset"), "lora": (4, "lora"), "training": (5, "training")},
        ),
        node(
            7,
            "LoraFurnaceStrengthTestTrainer",
            1730,
            (480, 640),
            {"strengths": "0, 0.5, 1", "prompts": "zibu on a blue background", "cfg": 5, "precision": "fp32"},
            {"base": (2, "base"), "loras": (6, "lora_names")},
        ),
        node(
            8,
            "LoraFurnaceBlockAnalysisTrainer",
            2250,
            (560, 900),
            {"prompt": "zibu on a blue background", "cfg": 5, "seeds": 2, "precision": "fp32"},
            {"base": (2, "base"), "lora_name": (6, "lora_name")},
        ),
    ],
    "sd15_block_weights": [
        node(1, "MarkdownNote", 0, (420, 560), {"": LBW_NOTE}, title="Read me · 请先阅读"),
        node(2, "CheckpointLoaderSimple", 460, (340, 110), {"ckpt_name": SD15}, models=[(SD15, SD15_URL, "checkpoints")]),
        node(3, "EmptyLatentImage", 460, (340, 110), {"width": 512, "height": 512}),
        node(
            4,
            "LoraFurnaceBlockAnalysis",
            840,
            (560, 1000),
            {"lora_name": MY_LORA, "prompt": "sks cat, photo"},
            {"model": (2, "MODEL"), "clip": (2, "CLIP"), "vae": (2, "VAE")},
        ),
        node(
            5,
            "LoraFurnaceLoadLoraBlockWeight",
            1440,
            (420, 560),
            {"lora_name": MY_LORA},
            {"model": (2, "MODEL"), "clip": (2, "CLIP"), "vector": (4, "vector")},
        ),
        node(6, "CLIPTextEncode", 1900, (340, 160), {"text": "sks cat, photo"}, {"clip": (5, "clip")}, title="Positive · 正向"),
        node(7, "CLIPTextEncode", 1900, (340, 120), {"text": ""}, {"clip": (5, "clip")}, title="Negative · 反向"),
        node(
            8,
            "KSampler",
            1900,
            (340, 260),
            {"seed": 1, "steps": 20, "cfg": 7, "sampler_name": "euler", "scheduler": "normal"},
            {"model": (5, "model"), "positive": (6, "CONDITIONING"), "negative": (7, "CONDITIONING"), "latent_image": (3, "LATENT")},
        ),
        node(9, "VAEDecode", 2280, (220, 50), links={"samples": (8, "LATENT"), "vae": (2, "VAE")}),
        node(10, "PreviewImage", 2280, (420, 460), links={"images": (9, "IMAGE")}),
    ],
    **GRIDS,
}

BUILD = """(nodes) => {
  const graph = window.app.graph
  graph.clear()
  const made = {}
  for (const spec of nodes) {
    const node = LiteGraph.createNode(spec.type)
    if (!node) throw new Error(`no node type ${spec.type}`)
    node.id = spec.id
    graph.add(node)
    if (spec.title) node.title = spec.title
    if (spec.models) node.properties.models = spec.models.map(([name, url, directory]) => ({ name, url, directory }))
    for (const [name, value] of Object.entries(spec.widgets)) {
      const widget = node.widgets.find((candidate) => candidate.name === name) ?? (name === '' ? node.widgets[0] : null)
      if (!widget) throw new Error(`${spec.type} has no widget ${name}: ${node.widgets.map((w) => w.name)}`)
      widget.value = value
    }
    made[spec.id] = node
  }
  for (const spec of nodes)
    for (const [input, [from, output]] of Object.entries(spec.links)) {
      const target = made[spec.id].inputs.findIndex((slot) => slot.name === input)
      const origin = made[from].outputs.findIndex((slot) => slot.name === output)
      if (target < 0 || origin < 0 || !made[from].connect(origin, made[spec.id], target))
        throw new Error(`${spec.type}.${input} cannot be fed by ${from}.${output}`)
    }
  const bottom = {}
  for (const spec of nodes) {
    const node = made[spec.id]
    const least = node.computeSize()
    node.setSize([Math.max(spec.size[0], least[0]), Math.max(spec.size[1], least[1])])
    node.pos = [spec.left, bottom[spec.left] ?? 0]
    bottom[spec.left] = node.pos[1] + node.size[1] + 60
  }
  const saved = JSON.parse(JSON.stringify(graph.serialize())) // without what is undefined: older frontends warn of null in its place
  saved.extra = {}
  delete saved.id // every copy would share it
  for (const node of saved.nodes) if (node.type === 'PreviewImage') node.outputs = [] // older versions of ComfyUI know none
  return saved
}"""


def fit(page: Any) -> None:
    """Show the whole graph."""
    page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(3000)


def make(comfy: Comfy, browser: Any, name: str, arguments: argparse.Namespace) -> None:
    path = FOLDER / f"{name}.json"
    with opened_page(browser, comfy) as page:
        saved = page.evaluate(BUILD, WORKFLOWS[name])
        path.write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        prompt = ui_to_api(page)
    if arguments.run:  # without the page, whose drawing would take a processor from the training
        print(name, outcome(comfy.wait(comfy.queue(prompt), 3600)))
    with opened_page(browser, comfy) as page:
        page.set_viewport_size({"width": 2600, "height": 1500})
        open_workflow(page, path)
        print(path, "red:", red_nodes(page) or "nothing")
        if arguments.run:
            comfy.wait(queue_from_ui(page), 3600)  # done already: this only shows the pictures
            page.wait_for_timeout(3000)
        fit(page)
        page.screenshot(path=arguments.screens / f"{name}.png")
        preview(page, arguments.screens / f"{name}.png", path.with_suffix(".jpg"))


BOUNDS = """() => {
  const { ds, graph } = window.app.canvas
  const boxes = graph.nodes.map((node) => [...node.getBounding()])
  const corner = (axis) => Math.min(...boxes.map((box) => box[axis]))
  const end = (axis) => Math.max(...boxes.map((box) => box[axis] + box[axis + 2]))
  const onScreen = (value, axis) => (value + ds.offset[axis]) * ds.scale
  return [onScreen(corner(0), 0), onScreen(corner(1), 1), onScreen(end(0), 0), onScreen(end(1), 1)]
}"""


def preview(page: Any, screenshot: Path, path: Path) -> None:
    """The part of a screenshot that shows the nodes."""
    left, top, right, bottom = page.evaluate(BOUNDS)
    with Image.open(screenshot) as picture:
        part = picture.convert("RGB").crop((round(left) - 12, round(top) - 24, round(right) + 12, round(bottom) + 12))
    part.thumbnail((1200, 1200))
    part.save(path, quality=85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("names", nargs="*", default=list(WORKFLOWS))
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--screens", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--pack", type=Path, default=ROOT)
    parser.add_argument("--link", action="append", default=[], help="FILE=models/checkpoints/NAME: a file to have in ComfyUI's folder")
    arguments = parser.parse_args()
    base = Path(tempfile.mkdtemp())
    for pair in [*arguments.link, f"{ROOT / 'trainer/demo/dataset/10_zibu'}=input/my_pictures"]:
        source, target = pair.split("=")
        (base / target).parent.mkdir(parents=True, exist_ok=True)
        if Path(source).is_dir():
            shutil.copytree(source, base / target)
        else:
            (base / target).symlink_to(source)
    random_lora(base / "models/loras" / MY_LORA)
    with running_comfy(arguments.comfyui, base, {"lora-furnace": arguments.pack}) as comfy, launched_browser() as browser:
        for name in arguments.names:
            make(comfy, browser, name, arguments)


if __name__ == "__main__":
    main()
