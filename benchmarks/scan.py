"""How long a large dataset takes until every picture has its bucket: at first sight, and again in a new process.

    python benchmarks/scan.py --out /tmp/many --count 10000

Pictures are pieces of scikit-image's photographs of 0.01 to 0.09 megapixels, every third a PNG, the others JPEG, each with a caption;
they are made once and stay in `--out`. Times are those of what `check` does with pictures and captions, without importing libraries.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from photographs import write_photographs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/scan"))
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--runs", type=int, default=3, help="further runs, each in a process of its own")
    parser.add_argument("--once", action="store_true", help="only one run, in this process")
    options = parser.parse_args()
    if options.once:
        _measure(options.out)
        return
    write_photographs(options.out / "pictures", options.count, (0.01, 0.09))
    shutil.rmtree(options.out / "cache", ignore_errors=True)
    for number in range(1 + options.runs):
        print("at first sight:" if number == 0 else "again:", flush=True)
        subprocess.run([sys.executable, __file__, "--out", str(options.out), "--once"], check=True)


def _measure(folder: Path) -> None:
    from trainer.bench_files import write_tokenizer
    from trainer.config import from_dict
    from trainer.data.report import describe_dataset
    from trainer.families.text import find_clip_tokenizer
    from trainer.plan import make_plan

    values = {"folders": [{"path": str(folder / "pictures")}], "resolution": 512, "cache": {"dir": str(folder / "cache")}}
    config = from_dict({"base": {"checkpoint": "none"}, "dataset": values})
    tokenizer = find_clip_tokenizer(str(write_tokenizer(folder / "tokenizer")), folder, 77)
    start, worked = time.perf_counter(), time.process_time()
    plan = make_plan(config)
    placed, worked_placed = time.perf_counter(), time.process_time()
    report = describe_dataset(plan.scan, config.dataset, lambda caption: len(tokenizer.ids(caption)), tokenizer.limit, plan.held_out)
    end, worked_end = time.perf_counter(), time.process_time()
    print(
        f"  {report.images} pictures in {len(report.buckets)} buckets {placed - start:.2f} s (processor {worked_placed - worked:.2f} s); "
        f"report with lengths of captions and identical files {end - placed:.2f} s (processor {worked_end - worked_placed:.2f} s)"
    )


if __name__ == "__main__":
    main()
