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

from frontend import launched_browser, open_workflow, opened_page, queue_from_ui, red_nodes, ui_to_api  # noqa: E402
from harness import Comfy, outcome, running_comfy  # noqa: E402
from PIL import Image  # noqa: E402

FOLDER = ROOT / "example_workflows"
SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
OBJECT = "object (Object · 物品)"  # the entry of Load Preset
# The demo's captions are sentences, and its model is small enough for high learning rates.
OWN_CHANGES = (
    "optimizer.text_encoder_lr=0.0005\nmethod.rank=32\nmethod.alpha=32\ndataset.captions.shuffle=false\ndataset.captions.keep_tokens=0"
)
SD15_URL = f"https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{SD15}"

FIRST_NOTE = """\
## Your first LoRA
Press **Run**. Nothing has to be downloaded: *Demo Base* is a tiny model that comes with this pack, and it has never seen the \
mascot **zibu**. Twelve pictures teach it.

1. *Train LoRA* shows step, loss and time left, and samples as they are drawn. **Cancel keeps the work**: run again to go on.
2. The LoRA is saved to `models/loras`, a file per two epochs.
3. *Strength Test* draws every file at every strength. Choose the file that looks best: the last is not always it.

Run it twice: nothing is trained again. Change a setting, and a new LoRA `zibu_2` is made.

Next: the template **sd15_lora**, with your own pictures.

---
## 训练第一个 LoRA
点击 **运行**。无需下载任何文件：*演示底模* 是随本插件附带的微型模型，它从未见过吉祥物 **zibu**，用十二张图片教会它。

1. *训练 LoRA* 节点显示步数、损失、剩余时间和样图。**取消不会丢失进度**：再次运行即可继续。
2. LoRA 保存到 `models/loras`，每两轮保存一个文件。
3. *强度测试* 用每个文件、每种强度各画一张图。选最好看的：最后一个不一定最好。

再次运行不会重复训练；修改参数后会生成新的 `zibu_2`。

下一步：打开模板 **sd15_lora**，用你自己的图片训练。
"""
SD15_NOTE = """\
## A LoRA of your own pictures
1. Put 10 to 50 pictures into a folder **inside ComfyUI's `input` folder**, here `input/my_pictures`. Beside each picture, a text \
file of the same name says what is on it: `001.png`, `001.txt`. Begin each text with a word that no one uses, such as `sks cat`.
2. Choose the folder and the checkpoint (both loaders: the left one trains, the right one tests). Press **Run**.
3. Look at the grid: files across, strengths down. Use the best file with *Load LoRA*.

No captions? Name the folder `10_sks cat`: 10 repeats, and "sks cat" is the caption. Little memory? Training Settings → \
gradient_checkpointing. **Cancel keeps the work**: run again to go on.

---
## 用自己的图片训练 LoRA
1. 准备 10 到 50 张图片，放进 **ComfyUI 的 `input` 文件夹中的子文件夹**，这里是 `input/my_pictures`。每张图片旁放一个同名文本文件描述\
画面：`001.png`、`001.txt`。每段文字以一个生僻词开头，例如 `sks cat`。
2. 选择图片文件夹和大模型（两个加载器：左边用于训练，右边用于测试），点击 **运行**。
3. 看对比图：横向是文件，纵向是强度。用 *加载 LoRA* 载入最好的文件。

没有标注？把文件夹命名为 `10_sks cat`：重复 10 次，标注为 “sks cat”。显存小？打开训练参数里的 gradient_checkpointing。\
**取消不会丢失进度**：再次运行即可继续。
"""

EXPERT_NOTE = """\
## Every setting in its place
The same training as **first_lora**, with the settings taken apart. Each node is optional; connect as many as you need, in a chain.

- *Demo Base* → *Captions* → *Augmentation*: what becomes of the pictures and captions at each use. (*Loss Masks* and *Regularisation \
Folder* go there too.)
- *Training Settings* → *Optimizer* → *Learning-Rate Schedule* → *Loss & Noise* → *Samples*: of two nodes that set the same thing, the one \
nearer to *Train LoRA* wins. A node that replaces something says so.
- *Load Preset* lays its values over all that, with a reason for each; your **changes** win over it. The notes mark them with ✗.
- *Save Configuration* writes everything to a file for *Load Configuration* and for the command line.

Cancelled, crashed, or wanting more epochs: *Resume Training* goes on with any run of `output/lora_furnace`.

---
## 每个设置单独一个节点
与 **first_lora** 相同的训练，但设置分开放置。每个节点都可省略；按需要串联。

- *演示底模* → *标注变化* → *图片增强*：图片和标注每次使用时的变化。（*损失遮罩* 和 *正则化图片* 也接在这里。）
- *训练参数* → *优化器* → *学习率调度* → *损失与噪声* → *样图*：两个节点设置同一项时，离 *训练 LoRA* 更近的优先。替换了设置的节点会说明。
- *载入预设* 把它的值放在最上面，每项都有理由；你的 **改动** 优先于它，说明中以 ✗ 标出。
- *保存配置* 把全部设置写入文件，供 *载入配置* 和命令行使用。

取消、崩溃或想多训练几轮：*继续训练* 可继续 `output/lora_furnace` 中的任何训练。
"""


def node(id: int, type: str, left: int, size: tuple[int, int], widgets: dict | None = None, links: dict | None = None, **more: Any):
    """Nodes with the same `left` stand below each other. `links` maps an input to (node id, output name)."""
    return {"id": id, "type": type, "left": left, "size": size, "widgets": widgets or {}, "links": links or {}, **more}


WORKFLOWS: dict[str, list[dict[str, Any]]] = {
    "first_lora": [
        node(1, "MarkdownNote", 0, (420, 560), {"": FIRST_NOTE}, title="Read me · 请先阅读"),
        node(2, "LoraFurnaceDemoBase", 460, (340, 110), {"batch_size": 8}),
        node(3, "LoraFurnaceLora", 460, (340, 160), {"rank": 32, "alpha": 32}),
        node(
            4,
            "LoraFurnaceTraining",
            460,
            (340, 640),
            {
                "epochs": 15,
                "precision": "fp32",
                "lr": 0.0015,
                "text_encoder_lr": 0.0005,
                "save_every_epochs": 3,
                "sample_prompts": "a big zibu on a blue background\nzibu on green grass",
                "sample_every_epochs": 3,
                "sample_cfg": 3,
                "validation_every_epochs": 5,
            },
        ),
        node(
            5,
            "LoraFurnaceTrainLora",
            850,
            (380, 520),
            {"lora_name": "zibu"},
            {"base": (2, "base"), "dataset": (2, "dataset"), "held_out": (2, "held_out"), "lora": (3, "lora"), "training": (4, "training")},
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
  const saved = graph.serialize()
  saved.extra = {}
  delete saved.id // every copy would share it
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
    with running_comfy(arguments.comfyui, base, {"lora-furnace": arguments.pack}) as comfy, launched_browser() as browser:
        for name in arguments.names:
            make(comfy, browser, name, arguments)


if __name__ == "__main__":
    main()
