"""Reading configuration files, which may come from anywhere: what they name must lie in ComfyUI's folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..trainer.config import TrainConfig
from ..trainer.demo import base_folder, dataset_folder, heldout_folder
from ..trainer.errors import ConfigError
from ..trainer.files import from_home
from ..trainer.reading import load_config
from . import host


def load_registered(path: Path) -> TrainConfig:
    """The configuration in a file, as the other nodes could have given it. ConfigError lists what lies outside ComfyUI's folders."""
    loaded = load_config(path)
    # A diffusers folder has its own tokenizer; for a single file it is ComfyUI's.
    tokenizer = None if Path(loaded.base.checkpoint).is_dir() else host.tokenizer_folder()
    loaded = loaded.model_copy(update={"base": loaded.base.model_copy(update={"tokenizer": tokenizer})})
    _require_registered(loaded)
    return loaded


def _require_registered(config: TrainConfig) -> None:
    """A file may come from anywhere; what it names must be what the widgets of the other nodes could name."""
    problems = [
        f"{setting}: {path} does not lie in ComfyUI's folders: {', '.join(map(str, roots))}"
        for setting, path, roots in _named_paths(config)
        if not _is_within(Path(path), roots)
    ]
    if problems:
        raise ConfigError(problems)


def _named_paths(config: TrainConfig) -> Iterator[tuple[str, str, list[Path]]]:
    """Every file and folder that a configuration reads, with the folders it may lie in."""
    pictures = [*host.picture_roots().values(), host.own_folder("regularization"), dataset_folder(), heldout_folder()]
    yield "base.checkpoint", config.base.checkpoint, [*host.model_roots("checkpoints"), *host.diffusers_roots(), base_folder()]
    if config.base.vae:
        yield "base.vae", config.base.vae, host.model_roots("vae")
    for number, folder in enumerate(config.dataset.folders):
        yield f"dataset.folders.{number}.path", folder.path, pictures
        if folder.masks:
            yield f"dataset.folders.{number}.masks", folder.masks, pictures
    for number, lora in enumerate(config.base.loras):
        yield f"base.loras.{number}.file", lora.file, host.model_roots("loras")
    if config.method.continue_from:
        yield "method.continue_from", config.method.continue_from, host.model_roots("loras")
    if config.validation.folder:
        yield "validate.folder", config.validation.folder, pictures


def _is_within(path: Path, roots: Iterable[Path]) -> bool:
    return any(from_home(path).resolve().is_relative_to(root.resolve()) for root in roots)
