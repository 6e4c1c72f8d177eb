"""Fixtures that many tests share: one tiny base model and one small dataset, made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# The networks of these tests are so small that a second thread only waits: on a busy machine thirty times longer than it
# works. It must be set before torch loads, so nothing here may import torch; child processes inherit it, so that their sums
# are added in the same order.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers() -> int | None:
    """One after the other beside a real ComfyUI, which wants the machine for itself."""
    return 0 if os.environ.get("COMFYUI_PATH") else None


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 1.5 as a diffusers folder. Do not change it."""
    import tiny

    return tiny.write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures in two bucket shapes, with captions of four tags. Do not change it."""
    import tiny

    return tiny.write_pictures(tmp_path_factory.mktemp("pictures"), sizes=[(64, 64), (96, 64), (64, 64), (64, 64), (96, 64)])


@pytest.fixture
def job(base: Path, pictures: Path, tmp_path: Path):
    """Makes a short job: job(train={"steps": 3}) changes only that."""
    import tiny

    def make(**sections):
        return tiny.job(base, pictures, tmp_path, **sections)

    return make
