"""What the pack shows to ComfyUI: ids, attributes, translations, help pages; and what its modules may import."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest
from loaded_pack import ROOT, Pack

NODES = (
    "BaseModel",
    "DemoBase",
    "Dataset",
    "Captions",
    "Augmentation",
    "Masks",
    "Regularization",
    "DrawRegularization",
    "Lora",
    "BlockWeights",
    "Training",
    "Optimizer",
    "Schedule",
    "LossNoise",
    "Samples",
    "Memory",
    "Check",
    "TrainLora",
    "Resume",
    "AddToQueue",
    "QueueStatus",
    "LossAnalysis",
    "OddPictures",
    "LoraInfo",
    "LoadPreset",
    "SaveConfiguration",
    "LoadConfiguration",
    "StrengthTest",
    "StrengthTestTrainer",
    "Grid",
    "GridTrainer",
    "Advice",
    "LoadLoraBlockWeight",
    "BlockWeightHook",
    "SaveBlockWeightedLora",
    "BlockAnalysis",
    "BlockAnalysisTrainer",
)
LOOK_EACH_TIME = ("Check", "QueueStatus", "AddToQueue")
HOST_MODULES = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "server", "nodes", "execution", "latent_preview"}
CONNECTION_TYPES = {"LF_BASE", "LF_DATASET", "LF_METHOD", "LF_TRAINING", "LOSS_MAP", "MODEL", "CLIP", "VAE"}


def visible_inputs(kind: type) -> dict[str, tuple]:
    inputs = kind.INPUT_TYPES()
    return {**inputs.get("required", {}), **inputs.get("optional", {})}


def test_ids(shown_pack: Pack) -> None:
    ids = {f"LoraFurnace{name}" for name in NODES}
    assert set(shown_pack.module.NODE_CLASS_MAPPINGS) == set(shown_pack.module.NODE_DISPLAY_NAME_MAPPINGS) == ids
    assert (ROOT / shown_pack.module.WEB_DIRECTORY).is_dir()


def test_without_comfyui(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in HOST_MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    space: dict = {"__name__": "somewhere"}
    exec(compile((ROOT / "__init__.py").read_text(encoding="utf-8"), "__init__.py", "exec"), space)
    assert space["NODE_CLASS_MAPPINGS"] == {}


@pytest.mark.parametrize("name", NODES)
def test_attributes(shown_pack: Pack, name: str) -> None:
    kind = shown_pack.node(name)
    assert kind.CATEGORY == "LoRA Furnace"
    assert kind.DESCRIPTION and kind.SEARCH_ALIASES and callable(getattr(kind, kind.FUNCTION))
    assert len(kind.RETURN_TYPES) == len(kind.RETURN_NAMES) == len(kind.OUTPUT_TOOLTIPS)
    for input_name, (type_name, options) in visible_inputs(kind).items():
        assert options["tooltip"], input_name
        known = isinstance(type_name, list) or type_name in {"INT", "FLOAT", "STRING", "BOOLEAN"} | CONNECTION_TYPES
        assert known, input_name
        if isinstance(type_name, list) and "default" in options:
            assert options["default"] in type_name, input_name
        if type_name in ("INT", "FLOAT"):
            assert options["min"] <= options["default"] <= options["max"], input_name


@pytest.mark.parametrize("name", NODES)
def test_definition_is_json(shown_pack: Pack, name: str) -> None:
    json.dumps(shown_pack.node(name).INPUT_TYPES())


@pytest.mark.parametrize("name", [name for name in NODES if name not in LOOK_EACH_TIME])
def test_a_link_changes_nothing_by_itself(shown_pack: Pack, name: str) -> None:
    kind = shown_pack.node(name)
    if hasattr(kind, "IS_CHANGED"):
        linked = dict.fromkeys(visible_inputs(kind))  # ComfyUI gives None for what is linked, an older one leaves it out
        for stamp in (kind.IS_CHANGED(), kind.IS_CHANGED(**linked)):
            assert isinstance(stamp, str)


@pytest.mark.parametrize("name", NODES)
def test_chinese(shown_pack: Pack, name: str) -> None:
    kind = shown_pack.node(name)
    entry = json.loads((ROOT / "locales/zh/nodeDefs.json").read_text(encoding="utf-8"))[f"LoraFurnace{name}"]
    assert entry["display_name"] and entry["description"]
    assert set(entry["inputs"]) == set(visible_inputs(kind))
    assert set(entry["outputs"]) == {str(number) for number in range(len(kind.RETURN_TYPES))}
    texts = [*entry["inputs"].values(), *entry["outputs"].values()]
    assert all(text["name"] and text["tooltip"] for text in texts)


@pytest.mark.parametrize("name", NODES)
def test_chinese_says_the_same_number_for_what_is_not_set(shown_pack: Pack, name: str) -> None:
    texts = json.loads((ROOT / "locales/zh/nodeDefs.json").read_text(encoding="utf-8"))[f"LoraFurnace{name}"]["inputs"]
    for key, (_, options) in visible_inputs(shown_pack.node(name)).items():
        if number := re.search(r"(-?\d+) = not set\.", options["tooltip"]):
            assert re.search(rf"(?<![-\d]){number[1]} = ", texts[key]["tooltip"]), key


@pytest.mark.parametrize("name", NODES)
def test_help_pages(name: str) -> None:
    for page in (f"LoraFurnace{name}.md", f"LoraFurnace{name}/zh.md"):
        assert (ROOT / "web/docs" / page).read_text(encoding="utf-8").startswith("# ")


def emphasised(page: str) -> list[str]:
    """What is in bold or italics."""
    return [text for _, text in re.findall(r"(\*\*?)([^*\n]+)\1", re.sub(r"`[^`]*`", "", page))]


def chinese_names(pack: Pack, name: str) -> dict[str, set[str]]:
    """What a node, its inputs and its outputs are called in the English interface, and what in the Chinese one."""
    key, kind = f"LoraFurnace{name}", pack.node(name)
    entry = json.loads((ROOT / "locales/zh/nodeDefs.json").read_text(encoding="utf-8"))[key]
    found: dict[str, set[str]] = {key: {entry["name"]} for key, entry in entry["inputs"].items()}
    for number, output in enumerate(kind.RETURN_NAMES):
        found.setdefault(output, set()).add(entry["outputs"][str(number)]["name"])
    title = pack.module.NODE_DISPLAY_NAME_MAPPINGS[key].removesuffix(" (LoRA Furnace)")
    return found | {title: {entry["display_name"].removesuffix("（LoRA 熔炉）")}}


@pytest.mark.parametrize("name", NODES)
def test_chinese_help_calls_things_as_the_chinese_nodes_do(shown_pack: Pack, name: str) -> None:
    """Every node, input and output that the English page has in bold or italics is so on the Chinese page, by its Chinese name."""
    known: dict[str, set[str]] = {}
    for other in NODES:
        for key, names in chinese_names(shown_pack, other).items():
            known[key] = known.get(key, set()) | names
    known |= chinese_names(shown_pack, name)  # a page means its own node's first
    english, chinese = ((ROOT / f"web/docs/LoraFurnace{name}{end}").read_text(encoding="utf-8") for end in (".md", "/zh.md"))
    said = {term for text in emphasised(english) for term in (text, *re.split(r"\s*[,/]\s*", text))}
    there = "\n".join(emphasised(chinese))
    assert {term: known[term] for term in said & set(known) if not any(each in there for each in known[term])} == {}


def imports(path: Path) -> set[tuple[int, str]]:
    """(level, first part) of every import of a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(0, alias.name.split(".")[0]) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.level, (node.module or "").split(".")[0]))
    return found


def test_only_host_imports_comfyui() -> None:
    files = sorted((ROOT / "nodes").glob("*.py"))
    assert len(files) > 8
    for path in files:
        foreign = {name for level, name in imports(path) if level == 0 and name in HOST_MODULES}
        assert not foreign or path.name == "host.py", path
        assert (0, "trainer") not in imports(path), f"{path}: ComfyUI loads the pack by path; import it relatively"


def test_nodes_stay_thin() -> None:
    for path in (ROOT / "nodes").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name == "execute":
                assert node.end_lineno - node.lineno < 25, f"{path}: execute"
            if isinstance(node, ast.ClassDef):
                assert node.end_lineno - node.lineno < 85, f"{path}: {node.name}"
