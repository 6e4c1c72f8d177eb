"""The command line: demo, train, check, grid, bench. Exit codes: 0 done, 1 failed, 2 bad input, 130 stopped with the work saved."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .errors import TrainerError

STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        result = options.run(options)
    except TrainerError as error:
        print(f"error: {error}", file=sys.stderr)
        if options.json:
            print(json.dumps({"status": "failed", "error": str(error)}, ensure_ascii=False))
        return error.exit_code
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    return STOPPED if result.get("status") == "stopped" else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lora-furnace", description="Train and test LoRAs for Stable Diffusion.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, help: str, run: Callable[[argparse.Namespace], dict[str, Any]]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.add_argument("--json", action="store_true", help="make the last line of output one JSON object")
        sub.set_defaults(run=run)
        return sub

    for name, help, run in (
        ("train", "Train what a YAML or JSON file describes.", _train),
        ("check", "Report what a training would do, without training.", _check),
    ):
        sub = command(name, help, run)
        sub.add_argument("config", help="configuration file, YAML or JSON")
        sub.add_argument("--set", action="append", default=[], metavar="a.b=c", help="change one setting; may be repeated")
    commands.choices["train"].add_argument("--resume", action="store_true", help="continue the run of this name from its saved state")

    demo = command("demo", "Train a small LoRA on the embedded base model and draw its strength grid.", _demo)
    demo.add_argument("--out", default="out/demo", metavar="DIR", help="folder of the results (default: %(default)s)")
    demo.add_argument("--steps", type=int, default=None, help="fewer or more training steps")

    grid = command("grid", "Draw a strength grid of LoRA files with the trainer's own sampler.", _grid)
    grid.add_argument("config", help="configuration that the files were trained with; its base and sample sections are used")
    grid.add_argument("--set", action="append", default=[], metavar="a.b=c", help="change one setting; may be repeated")
    grid.add_argument("--lora", nargs="+", metavar="FILE", help="LoRA files; default: every file of the run")
    grid.add_argument("--strengths", default="0-1.2/0.2", help="numbers and ranges (default: %(default)s)")
    grid.add_argument("--out", default="out/grid", metavar="DIR", help="folder of the results (default: %(default)s)")

    bench = command("bench", "Measure seconds per step on a real-size checkpoint with random weights.", _bench)
    bench.add_argument("--steps", type=int, default=20)
    bench.add_argument("--warmup", type=int, default=5, help="steps that are not counted")
    bench.add_argument("--resolution", type=int, default=256)
    bench.add_argument("--batch", type=int, default=1)
    bench.add_argument("--rank", type=int, default=16)
    bench.add_argument("--precision", default="bf16", choices=("fp32", "bf16", "fp16"))
    bench.add_argument("--device", default="auto")
    bench.add_argument("--out", default="out/bench", metavar="DIR", help="folder of checkpoint and pictures, which are kept")
    bench.add_argument("--set", action="append", default=[], metavar="a.b=c", help="change one setting; may be repeated")
    return parser


class _Interrupt:
    """A stop check that Ctrl-C and SIGTERM switch on; a second Ctrl-C ends the program at once."""

    def __init__(self) -> None:
        self._stopped = False

    def __enter__(self) -> _Interrupt:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: Any) -> None:
        if self._stopped and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._stopped = True
        print("stopping after this step; the work will be saved (Ctrl-C again: at once)", file=sys.stderr)

    def __call__(self) -> bool:
        return self._stopped


def _train(options: argparse.Namespace) -> dict[str, Any]:
    from . import train
    from .config import load
    from .console import ConsoleListener

    config = load(options.config, options.set)
    console = ConsoleListener()
    try:
        with _Interrupt() as stop:
            result = train(config, listen=console, stop=stop, resume=options.resume)
    finally:
        console.finish()
    if result.status == "stopped":
        print(f"stopped after step {result.steps}; continue with: train {options.config} --resume", file=sys.stderr)
    return result.as_dict()


def _check(options: argparse.Namespace) -> dict[str, Any]:
    from . import check
    from .config import load

    report = check(load(options.config, options.set))
    print("\n".join(report.lines()))
    return report.as_dict()


def _demo(options: argparse.Namespace) -> dict[str, Any]:
    from .console import ConsoleListener
    from .demo.run import run_demo

    console = ConsoleListener()
    try:
        with _Interrupt() as stop:
            result = run_demo(Path(options.out), options.steps, console, stop)
    finally:
        console.finish()
    print("\n".join(result.lines()))
    return result.as_dict()


def _grid(options: argparse.Namespace) -> dict[str, Any]:
    from . import strength_test
    from .config import load
    from .console import ConsoleListener
    from .evaluate.strength import parse_strengths, write_pictures
    from .log import LOG_FILE, history
    from .preflight import run_dir_of

    config = load(options.config, options.set)
    files = [Path(file) for file in options.lora or ()] or list(dict.fromkeys(history(run_dir_of(config) / LOG_FILE).files))
    console = ConsoleListener()
    try:
        with _Interrupt() as stop:
            strengths = parse_strengths(options.strengths)
            test = strength_test(
                config.base, files, strengths, config.sample, config.dataset.resolution,
                precision=config.train.precision, device=config.train.device, listen=console, stop=stop,
            )  # fmt: skip
    finally:
        console.finish()
    pictures = write_pictures(test, Path(options.out))
    print("\n".join(f"grid: {path}" for path in pictures))
    return {"status": "done" if test.finished else "stopped", "grids": [str(path) for path in pictures]}


def _bench(options: argparse.Namespace) -> dict[str, Any]:
    from .bench import run_bench

    report = run_bench(options)
    print("\n".join(f"{name}: {value}" for name, value in report.items()))
    return report
