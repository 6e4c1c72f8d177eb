"""Fixtures for tests against a real ComfyUI; without COMFYUI_PATH, which names its checkout, they all skip."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from checkpoints import random_checkpoint
from frontend import launched_browser, opened_page, why_no_browser
from harness import Comfy, running_comfy

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PACK_NAME = "lora-furnace"
PACK_ROOT = Path(__file__).resolve().parents[2]
running: list[Comfy] = []


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    if not (checkout := os.environ.get("COMFYUI_PATH")):
        pytest.skip("COMFYUI_PATH is not set: it names a ComfyUI checkout whose requirements are installed")
    return Path(checkout).resolve()


@pytest.fixture(scope="session")
def comfy(comfyui_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comfy]:
    """A ComfyUI that has this pack installed, shared by all tests of the session."""
    base = tmp_path_factory.mktemp("comfyui")
    with running_comfy(comfyui_path, base, {PACK_NAME: PACK_ROOT}) as started:
        running.append(started)
        yield started
        running.remove(started)


@pytest.fixture(scope="session")
def checkpoint(comfy: Comfy) -> str:
    """A random checkpoint in the form of Stable Diffusion 1.5, under a name that Load Checkpoint lists."""
    file = comfy.base / "models/checkpoints/lora_furnace_test.safetensors"
    file.symlink_to(random_checkpoint(comfy.base))
    return file.name


@pytest.fixture(scope="session")
def browser(comfyui_path: Path) -> Iterator[Browser]:
    if reason := why_no_browser():
        pytest.skip(reason)
    with launched_browser() as started:
        yield started


@pytest.fixture
def page(browser: Browser, comfy: Comfy) -> Iterator[Page]:
    """A fresh browser page showing the ComfyUI of this session."""
    with opened_page(browser, comfy) as opened:
        yield opened


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Shows the end of ComfyUI's log under every failed test."""
    report = yield
    if report.failed and running:
        report.sections.append(("ComfyUI log", running[-1].log_tail()))
    return report
