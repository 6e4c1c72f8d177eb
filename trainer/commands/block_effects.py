"""The part of `blocks` that draws: which blocks of a LoRA change the picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .shared import Interrupt, add_settings

if TYPE_CHECKING:
    from ..block_weights import WeightedLora
    from ..config import TrainConfig
    from ..evaluate.block_effects import BlockEffects, Question

_DEFAULTS = {"sets": "", "ratios": "0", "seeds": "1", "threshold": "20", "dir": "out/blocks"}  # what only acts with --prompt


def arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which blocks change the picture", "With --prompt, one block after the other gets another weight.")
    group.add_argument("--prompt", metavar="TEXT", help="draw this with every block as it is weighted, then with one changed at a time")
    group.add_argument("--base", metavar="FILE", help="base model (default: the one that the LoRA was trained on)")
    group.add_argument("--sets", metavar="TEXT", help="blocks to change together, such as IN04-IN05, M00 (default: each block alone)")
    group.add_argument("--ratios", metavar="TEXT", help="weights to give them: numbers and ranges such as 0-0.5/0.25 (default: 0)")
    group.add_argument("--seeds", metavar="TEXT", help="noise seeds, such as 1,2,3 (default: 1)")
    group.add_argument("--threshold", metavar="N", help="grey levels of 255 from which on a pixel counts as changed (default: 20)")
    group.add_argument("--dir", metavar="DIR", help="folder of the pictures and tables (default: out/blocks)")
    add_settings(group)


def run(options: argparse.Namespace, path: Path, weighted: WeightedLora) -> dict[str, Any]:
    """Draws where there is a prompt. ConfigError for settings that would do nothing."""
    from ..errors import ConfigError
    from ..files import require_writable

    given = {name: getattr(options, name) for name in _DEFAULTS if getattr(options, name) is not None}
    if options.prompt is None:
        idle = [*given, *(["base"] if options.base else []), *(["set"] if options.set else [])]
        if idle:
            raise ConfigError(f"--{idle[0]}: acts only together with --prompt")
        return {}
    texts = _DEFAULTS | given
    folder = Path(texts["dir"])
    require_writable(folder, "--dir", make=False)
    config = _config(path, options.base, options.prompt, options.set)
    effects = _draw(config, path, _question(weighted, texts))
    files = _save(effects, folder, path.stem, options.prompt)
    print("\n".join([effects.text(), *(f"file: {file}" for file in files)]))
    return {"status": "done" if effects.finished else "stopped", "files": files, **effects.as_dict()}


def _question(weighted: WeightedLora, texts: dict[str, str]) -> Question:
    from ..errors import ConfigError
    from ..evaluate.axes import parse_numbers
    from ..evaluate.block_effects import ask

    try:
        seeds = [int(item) for item in texts["seeds"].split(",")]
        threshold = float(texts["threshold"])
    except ValueError:
        raise ConfigError(f"--seeds {texts['seeds']} or --threshold {texts['threshold']} is not a number") from None
    return ask(weighted, texts["sets"], parse_numbers(texts["ratios"], "ratios"), seeds, threshold)


def _config(path: Path, base: str | None, prompt: str, overrides: Sequence[str]) -> TrainConfig:
    """Base model and sampler: those that the LoRA was trained with, or the named base with our defaults."""
    from ..config import from_dict
    from ..config.io import apply_overrides
    from ..errors import ConfigError
    from ..reading import recorded_values

    try:
        values = recorded_values(path)
    except ConfigError:
        if not base:
            raise ConfigError(f"{path} does not say what it was trained on; name the base model with --base") from None
        values: dict[str, Any] = {"dataset": {"folders": [{"path": "."}]}}  # no picture is read from it
        values["sample"] = {"size": _native_size(base)}
    if base:
        values["base"] = {"checkpoint": base}
    values.setdefault("sample", {})["prompts"] = [prompt]
    return from_dict(apply_overrides(values, overrides))


def _native_size(base: str) -> int:
    from ..families import FAMILIES, find_family

    return find_family(base, "auto", FAMILIES).spec.native_resolution


def _draw(config: TrainConfig, path: Path, question: Question) -> BlockEffects:
    from ..console import ConsoleListener
    from ..evaluate.block_effects import draw_effects

    console = ConsoleListener()
    try:
        with Interrupt() as stop:
            return draw_effects(
                config.base, path, question, config.sample, config.dataset.resolution,
                precision=config.train.precision, device=config.train.device, listen=console, stop=stop,
            )  # fmt: skip
    finally:
        console.finish()


def _save(effects: BlockEffects, folder: Path, title: str, note: str) -> list[str]:
    """The table as text and for spreadsheets, the charts and the contact sheet; returns the files."""
    from ..evaluate.effect_pictures import contact_sheet, effect_charts
    from ..files import replacing, write_text

    texts = {"effects.txt": effects.text() + "\n", "effects.csv": effects.csv()}
    for name, text in texts.items():
        write_text(folder / name, text)
    pictures = {f"chart_{number}.png": chart for number, chart in enumerate(effect_charts(effects, title), 1)}
    if effects.references:
        pictures["sheet.png"] = contact_sheet(effects, title, note)
    for name, picture in pictures.items():
        with replacing(folder / name) as temporary:
            picture.save(temporary, format="PNG")
    return [str(folder / name) for name in (*texts, *pictures)]
