"""Where the parts of a run lie."""

from __future__ import annotations

from pathlib import Path

from .config import TrainConfig
from .files import from_home


def run_dir_of(config: TrainConfig) -> Path:
    """The folder of log, samples and state."""
    given = config.save.run_dir
    return from_home(given).absolute() if given else from_home(config.save.dir).absolute() / config.save.name


def cache_dir_of(config: TrainConfig) -> Path:
    """The folder of encoded pictures and captions."""
    given = config.dataset.cache.dir
    return from_home(given).absolute() if given else from_home(config.save.dir).absolute() / ".lora_furnace_cache"


def picture_memory_of(config: TrainConfig) -> Path:
    """The folder in which it is remembered what was found out about pictures."""
    return cache_dir_of(config) / "known"
