"""Speed and memory of a whole training, measured on a real-size checkpoint with random weights.

The training runs in a process of its own, so that "time to the first step" counts everything a user waits for, and
peak memory is that of the training alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from .config import TrainConfig, from_dict, to_yaml
from .config.io import apply_overrides
from .errors import ConfigError, TrainerError
from .events import StepDone
from .log import LOG_FILE, read_log
from .places import run_dir_of
from .program import package_command


def run_bench(options: argparse.Namespace) -> dict[str, Any]:
    """Make checkpoint and pictures where they are missing, train, and report."""
    from .bench_files import random_checkpoint, random_pictures
    from .families import FAMILIES

    family = options.family or next(iter(FAMILIES))
    if family not in FAMILIES:
        raise ConfigError(f"--family: {family!r} is unknown; known: {', '.join(FAMILIES)}")
    if options.steps < 1 or options.warmup < 0 or options.steps + options.warmup < 2:  # a step counts from the end of the one before
        raise ConfigError(f"--steps {options.steps} --warmup {options.warmup}: leave nothing to measure; give 1 or more of each")
    folder = Path(options.out).absolute()
    checkpoint, pictures = folder / f"{family}_random.safetensors", folder / "pictures"
    config = _config(options, folder, checkpoint, pictures)
    random_checkpoint(checkpoint, family)
    random_pictures(pictures, 4, options.resolution)
    path = folder / "bench.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    start = time.time()
    peak = _run(path)
    steps = [line for line in read_log(run_dir_of(config) / LOG_FILE) if line["event"] == StepDone.__name__]
    # From the end of one step to the end of the next: what lies between two steps is part of what a user waits for.
    times = [line["time"] for line in steps[max(0, options.warmup - 1) :]]
    counted = [after - before for before, after in pairwise(times)]
    return {
        "status": "done",
        "seconds_per_step": round(statistics.median(counted), 4),
        "seconds_to_first_step": round(steps[0]["time"] - start, 2),
        "peak_mib": peak["peak_mib"],
        "peak_gpu_mib": peak["peak_gpu_mib"],
        "steps": len(steps),
        "machine": _machine(config.train.device),
    }


def _config(options: argparse.Namespace, folder: Path, checkpoint: Path, pictures: Path) -> TrainConfig:
    values = {
        "base": {"checkpoint": str(checkpoint)},
        "dataset": {
            "folders": [{"path": str(pictures)}],
            "resolution": options.resolution,
            "batch_size": options.batch,
            "cache": {"dir": str(folder / "cache")},
        },
        "method": {"rank": options.rank, "alpha": options.rank / 2},
        "train": {"steps": options.steps + options.warmup, "precision": options.precision, "device": options.device},
        "save": {"dir": str(folder / "out"), "name": f"bench_{os.getpid()}_{int(time.time())}", "every_epochs": None},
    }
    return from_dict(apply_overrides(values, options.set))


def _run(config: Path) -> dict[str, Any]:
    """Train in a fresh process; its peak resident memory and, on CUDA, its peak device memory."""
    command = package_command(".bench import train_and_measure; train_and_measure(sys.argv[1])", str(config))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise TrainerError(f"the benchmark's training ended with exit code {done.returncode}; see the messages above")
    return json.loads(done.stdout.splitlines()[-1])


def train_and_measure(config: str) -> None:
    """What the fresh process does."""
    from . import train
    from .config import load

    train(load(config))
    print(json.dumps({"peak_mib": _peak_resident_mib(), "peak_gpu_mib": _peak_device_mib()}))


def _peak_resident_mib() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def _peak_device_mib() -> int | None:
    import torch

    return round(torch.cuda.max_memory_allocated() / 2**20) if torch.cuda.is_available() else None


def _machine(device: str) -> str:
    import torch

    from .precision import resolve_device

    resolved = resolve_device(device)
    name = torch.cuda.get_device_name(resolved) if resolved.type == "cuda" else f"{os.cpu_count()} CPU cores"
    return f"{name}, {platform.machine()}, torch {torch.__version__}, Python {platform.python_version()}"
