"""The rules of the code's shape, read from the source: who may import whom, and what may happen when."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.families import FAMILIES
from trainer.methods import METHODS

ROOT = Path(__file__).parents[1]
MAX_FILE, MAX_FUNCTION = 400, 80

# A module of the trainer may import those of its own row and of the rows above. What is in no row composes the others
# (run, check, cli, demo …): it may import anything, and nothing in a row may import it.
ROWS = (
    {"errors", "seeds", "result", "progress", "columns"},
    {"events", "config", "files", "precision", "places", "memory", "distributed"},
    {"diffusion", "data", "optim", "adapters"},
    {"families"},
    {"methods", "plan"},
    {"feed", "objective", "sample", "validate", "metadata", "checkpoint", "log", "ladder", "compiled", "loop"},
)
# Parts of one row that know nothing of each other.
STRANGERS = ({"diffusion", "data", "optim", "adapters"},)
HOSTS = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "server", "execution", "nodes", "aiohttp"}
HEAVY = {"torch", "diffusers", "transformers", "bitsandbytes", "accelerate", "matplotlib", "lion_pytorch", "skimage"}
FORBIDDEN = {
    "random.seed",
    "np.random.seed",
    "numpy.random.seed",
    "torch.manual_seed",
    "torch.cuda.manual_seed_all",
    "torch.set_default_dtype",
    "logging.basicConfig",
    "warnings.filterwarnings",
    "warnings.simplefilter",
    "sys.path.append",
    "sys.path.insert",
    "sys.exit",
    "exit",
    "quit",
}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


trainer_files = pytest.mark.parametrize("path", sources("trainer"), ids=name_of)
own_files = pytest.mark.parametrize("path", sources("trainer", "nodes"), ids=name_of)


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def working_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if not only_for_types(node):
            yield node
            yield from working_nodes(node)


def imports(path: Path) -> set[str]:
    """Full names of what a file imports, anywhere in it; relative imports as trainer.…"""
    package = list(path.relative_to(ROOT).with_suffix("").parts)
    found = set()
    for node in working_nodes(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def part_of(name: str) -> str:
    """The first part below the package: "data" for trainer.data.cache."""
    return name.split(".")[1] if "." in name else ""


def row_of(part: str) -> int:
    return next((number for number, row in enumerate(ROWS) if part in row), len(ROWS))


def dotted(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""


def test_the_rules_are_about_something():
    parts = {path.stem if path.parent.name == "trainer" else path.parent.name for path in sources("trainer")}
    assert set().union(*ROWS) <= parts
    assert len(sources("trainer")) > 40


@trainer_files
def test_arrows_point_one_way(path):
    part = part_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    own = row_of(part)
    for name in imports(path):
        if name.startswith("trainer."):
            other = part_of(name)
            if not (ROOT / "trainer" / other).is_dir() and not (ROOT / "trainer" / f"{other}.py").is_file():
                continue  # a name from the package's own __init__
            assert row_of(other) <= own, f"{name_of(path)} imports {name}"
            strangers = any(part in group and other in group and part != other for group in STRANGERS)
            assert not strangers, f"{name_of(path)} imports {name}"


@trainer_files
def test_the_trainer_knows_no_host(path):
    assert {name for name in imports(path) if name.split(".")[0] in HOSTS} == set()


@pytest.mark.parametrize("path", sources("nodes"), ids=name_of)
def test_one_module_of_the_nodes_knows_the_host(path):
    found = {name.split(".")[0] for name in imports(path)} & (HOSTS - {"nodes"})
    assert found == set() or path.name == "host.py"


def import_time_nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Everything that runs when a module is imported: not the insides of functions, but those of classes."""
    for statement in body:
        if only_for_types(statement) or isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(statement, ast.ClassDef):
            yield from import_time_nodes(statement.body)
        elif isinstance(statement, ast.If) and "__main__" in ast.unparse(statement.test):
            continue
        else:
            yield statement
            yield from (node for node in ast.walk(statement) if node is not statement)


@own_files
def test_nothing_is_done_at_import(path):
    for node in import_time_nodes(tree_of(path).body):
        where = f"{name_of(path)}:{getattr(node, 'lineno', '?')}: {ast.unparse(node)[:80]}"
        if isinstance(node, ast.Expr):
            harmless = isinstance(node.value, ast.Constant)
            assert harmless or path.name in ("__main__.py",), where
        assert not isinstance(node, (ast.For, ast.While, ast.With)), where
        for word in ("os.environ", "sys.path", "torch.backends", "os.getenv"):
            assert not dotted(node).startswith(word), where


@own_files
def test_no_process_wide_state_is_set(path):
    for node in ast.walk(tree_of(path)):
        where = f"{name_of(path)}:{getattr(node, 'lineno', '?')}"
        if isinstance(node, ast.Call) and path.name not in ("__main__.py",):
            assert dotted(node.func) not in FORBIDDEN, where
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.Delete)):
            targets = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else [node.target]
            for target in targets:
                text = ast.unparse(target)
                assert not text.startswith(("os.environ", "sys.path", "torch.backends")), where
        assert not isinstance(node, ast.Global), where


def literals(path: Path) -> Iterator[tuple[str, int]]:
    """Texts that are compared with, looked up by, or keys of a table: where code decides by a name."""
    for node in ast.walk(tree_of(path)):
        candidates: list[ast.AST | None] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            candidates = [item for side in sides for item in (side.elts if isinstance(side, (ast.Tuple, ast.List, ast.Set)) else [side])]
        elif isinstance(node, ast.Subscript):
            candidates = [node.slice]
        elif isinstance(node, ast.Dict):
            candidates = list(node.keys)
        elif isinstance(node, ast.MatchValue):
            candidates = [node.value]
        for item in candidates:
            if isinstance(item, ast.Constant) and isinstance(item.value, str):
                yield item.value, item.lineno


@own_files
def test_families_and_methods_are_named_in_their_own_folders(path):
    folder = part_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    families = set(FAMILIES) | {"sd15", "sd2", "sdxl", "sd3", "flux"} if folder != "families" else set()
    methods = set(METHODS) | {"textual_inversion", "hypernetwork", "dreambooth"} if folder not in ("methods", "config") else set()
    for text, line in literals(path):
        assert text not in families | methods, f"{name_of(path)}:{line}: {text!r}"


@pytest.mark.parametrize("path", sources("trainer", "nodes", "tests", "tools", "benchmarks"), ids=name_of)
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{name_of(path)}: {node.name} has {length} lines"


@own_files
def test_every_module_says_what_it_is_for(path):
    if path.name == "__init__.py" and not path.read_text().strip():
        return
    assert ast.get_docstring(tree_of(path)), name_of(path)


def test_importing_the_trainer_loads_no_heavy_library():
    code = "import sys, trainer, trainer.config, trainer.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert set(done.stdout.split()) & HEAVY == set()
    assert "trainer" in done.stdout.split()


def test_importing_everything_changes_no_process_wide_state():
    """Threads, seeds, warnings, logging and the environment are as before; that is what a host counts on."""
    code = """
import logging, os, random, sys, warnings
import torch, diffusers, transformers, matplotlib
def state():
    kernels = torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    numbers = torch.is_grad_enabled(), torch.initial_seed(), random.getstate()
    host = list(warnings.filters), list(logging.getLogger().handlers), dict(os.environ), list(sys.path), matplotlib.get_backend()
    return *kernels, *numbers, *host
before = state()
import trainer.run, trainer.check_report, trainer.cli, trainer.families, trainer.methods, trainer.evaluate.grid, trainer.evaluate.curves
after = state()
print([number for number, pair in enumerate(zip(before, after)) if pair[0] != pair[1]])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"
