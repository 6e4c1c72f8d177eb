"""Whether the advice is right: four kinds of training, made on purpose on the demo base, with several seeds each.

    python benchmarks/advice_cases.py                              # all of them; about an hour on two CPU cores
    python benchmarks/advice_cases.py --case good --seed 1 2       # some
    python benchmarks/advice_cases.py --record                     # all, and keep the figures for the tests

A training whose last file lies in the folder is not trained again, and what was measured of it is kept beside it as evidence.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer import TrainConfig, advise, train
from trainer.config import from_dict
from trainer.console import ConsoleListener
from trainer.demo import dataset_folder
from trainer.demo.run import demo_config
from trainer.evaluate.advice import Advice, give_advice
from trainer.evaluate.probes import Evidence
from trainer.files import write_text
from trainer.places import run_dir_of

SEEDS = (1, 2, 3, 4, 5)
RECORD = Path(__file__).parents[1] / "tests" / "evaluate" / "data" / "advice_cases.json"


@dataclass(frozen=True)
class Case:
    """A training, what the advice must say of it, and which of its files a person takes, counted from 0; none where all are bad."""

    about: str
    diagnosis: str
    takes: tuple[int, ...]
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the demo's settings, by section
    pictures: int | None = None  # only so many of the demo's training pictures


CASES = {
    "few": Case(
        "two epochs of the demo's fifteen", "too few steps", (1,),
        {"train": {"epochs": 2}, "save": {"every_epochs": 1}},
    ),
    "many": Case(
        "three pictures, each seen six hundred times, at a rate that does not fall", "too many steps", (0,),
        {"train": {"steps": 450}, "dataset": {"batch_size": 4}, "schedule": {"kind": "constant"},
         "save": {"every_epochs": None, "every_steps": 90}},
        pictures=3,
    ),
    "high": Case(
        "the demo's pictures at twenty times its rates", "rate too high", (),
        {"train": {"epochs": 4}, "optimizer": {"lr": 3e-2, "text_encoder_lr": 1e-2}, "save": {"every_epochs": 1}},
    ),
    "good": Case("the demo's own settings", "good", (1, 2, 3, 4)),
}  # fmt: skip


def config_of(name: str, seed: int, out: Path) -> TrainConfig:
    """The demo's configuration with the changes of a case; nothing is drawn or validated on the way."""
    case, folder = CASES[name], out / f"{name}-{seed}"
    values = demo_config(folder).as_dict()
    quiet = {"sample": {"every_epochs": None}, "validate": {"every_epochs": None}, "train": {"seed": seed}}
    for changes in (quiet, case.changes):
        for section, fields in changes.items():
            values[section] |= fields
    values["dataset"]["cache"]["dir"] = str(out / "cache")
    if case.pictures:
        values["dataset"]["folders"][0]["path"] = str(_some_pictures(case.pictures, out))
    return from_dict(values)


def _some_pictures(count: int, out: Path) -> Path:
    """A copy of the dataset with its first pictures only."""
    (source,) = dataset_folder().iterdir()
    folder = out / f"{count}_pictures" / source.name
    folder.mkdir(parents=True, exist_ok=True)
    for picture in sorted(source.glob("*.png"))[:count]:
        for file in (picture, picture.with_suffix(".txt")):
            shutil.copyfile(file, folder / file.name)
    return folder.parent


def measured(name: str, seed: int, out: Path, listen: ConsoleListener) -> Evidence:
    """Train a case and measure its files, as far as that was not done before."""
    config = config_of(name, seed, out)
    folder = run_dir_of(config)
    evidence = folder / "evidence.json"
    if evidence.is_file():
        return Evidence.from_dict(json.loads(evidence.read_text(encoding="utf-8")))
    if not (Path(config.save.dir) / f"{config.save.name}.safetensors").is_file():
        train(config, listen=listen, resume=True)
    found = advise(config, folder / "advice", pictures=False, listen=listen)
    assert found is not None
    write_text(evidence, json.dumps(found.evidence.as_dict()))
    return found.evidence


def record(names: list[str], seeds: list[int], out: Path) -> None:
    """Keep what was measured, to five digits and without folders, beside what is recorded of other cases and seeds."""
    found: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    for name in names:
        for seed in seeds:
            evidence = measured(name, seed, out, ConsoleListener())
            evidence = replace(evidence, files={Path(file.name): probes for file, probes in evidence.files.items()})
            found[f"{name}-{seed}"] = json.loads(json.dumps(evidence.as_dict()), parse_float=lambda text: float(f"{float(text):.5g}"))
    lines = (f"{json.dumps(key)}: {json.dumps(found[key])}" for key in sorted(found))
    write_text(RECORD, "{\n" + ",\n".join(lines) + "\n}\n")


def is_right(case: Case, advice: Advice) -> bool:
    """Whether the diagnosis is the expected one, and the file one of those that a person takes."""
    number = [verdict.file for verdict in advice.verdicts].index(advice.file) if advice.file else None
    return advice.diagnosis == case.diagnosis and (number in case.takes if number is not None else not case.takes)


def rows(names: list[str], seeds: list[int], out: Path) -> Iterator[dict[str, Any]]:
    """What the advice says of each training, as plain values."""
    console = ConsoleListener()
    for name in names:
        for seed in seeds:
            try:
                advice = give_advice(measured(name, seed, out, console))
            finally:
                console.finish()
            yield {
                "case": name, "seed": seed, "right": is_right(CASES[name], advice), "diagnosis": advice.diagnosis,
                "file": advice.file.stem if advice.file else None, "strength": advice.strength, "text": advice.lines(),
            }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--seed", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--out", default="out/advice_cases", metavar="DIR", help="folder of the trainings (default: %(default)s)")
    parser.add_argument("--texts", action="store_true", help="print the whole advice of each")
    parser.add_argument("--record", action="store_true", help=f"write what was measured to {RECORD.name} of the tests")
    options = parser.parse_args()
    out = Path(options.out).absolute()
    print(f"{'case':6} {'seed':4} {'':5} {'diagnosis':20} file and strength")
    found = []
    for row in rows(options.case, options.seed, out):
        found.append(row)
        word = "right" if row["right"] else "WRONG"
        choice = f"{row['file']} at {row['strength']:g}" if row["file"] else "none"
        print(f"{row['case']:6} {row['seed']:4} {word} {row['diagnosis']:20} {choice}", flush=True)
        if options.texts or not row["right"]:
            print("".join(f"            {line}\n" for line in row["text"]), flush=True)
    if options.record:
        record(options.case, options.seed, out)
    wrong = sum(not row["right"] for row in found)
    write_text(out / "advice_cases.json", json.dumps(found, indent=1, ensure_ascii=False))
    print(f"{len(found) - wrong} of {len(found)} right; {out / 'advice_cases.json'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
