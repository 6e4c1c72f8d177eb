"""How busy the encoder is while latents are cached: the rest of the time it waits for pictures, or for the disk.

    python benchmarks/caching.py --checkpoint out/bench/sd15_random.safetensors --resolution 256
    python benchmarks/caching.py --checkpoint out/bench/sd15_random.safetensors --encoder-ms 100

Pictures are pieces of scikit-image's photographs, enlarged to 1 to 4 megapixels. With `--encoder-ms`, an encoder that only waits so
long stands for a GPU: it uses no processor.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from photographs import write_photographs

from trainer.config import from_dict
from trainer.data.cache import TensorCache
from trainer.events import ignore, never
from trainer.families import FAMILIES, find_family, load_base
from trainer.feed import fill_caches
from trainer.plan import make_plan
from trainer.precision import DTYPES, resolve_device


class Busy:
    """Takes the place of the encoder and measures when it works."""

    def __init__(self, encode: Any, wait: float | None):
        self.encode, self.wait = encode, wait
        self.times: list[tuple[float, float]] = []

    def __call__(self, model: Any, pixels: torch.Tensor) -> torch.Tensor:
        start = time.perf_counter()
        if self.wait is None:
            latents = self.encode(model, pixels)
        else:
            time.sleep(self.wait)
            latents = torch.zeros(1, 4, pixels.shape[2] // 8, pixels.shape[3] // 8)
        if latents.is_cuda:
            torch.cuda.synchronize()
        self.times.append((start, time.perf_counter()))
        return latents

    def share(self) -> float:
        return sum(end - start for start, end in self.times) / (self.times[-1][1] - self.times[0][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--out", type=Path, default=Path("out/caching"))
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--precision", default="bf16", choices=tuple(DTYPES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--encoder-ms", type=float)
    options = parser.parse_args()
    pictures = write_photographs(options.out / "pictures", options.count, (1.0, 4.0))
    cache = options.out / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    dataset = {"folders": [{"path": str(pictures)}], "resolution": options.resolution, "cache": {"dir": str(cache)}}
    config = from_dict({"base": {"checkpoint": options.checkpoint}, "dataset": dataset})
    plan, family = make_plan(config), find_family(options.checkpoint, "auto", FAMILIES)
    model = load_base(family, config.base, resolve_device(options.device), DTYPES[options.precision], config.memory)
    busy = Busy(family.encode_images, options.encoder_ms and options.encoder_ms / 1000)
    family.encode_images = busy
    fill_caches(plan, family, model, TensorCache(cache), False, ignore, never)
    seconds = busy.times[-1][1] - busy.times[0][0]
    print(f"{len(busy.times)} pictures in {seconds:.1f} s, {seconds / len(busy.times):.3f} s each; encoder busy {busy.share():.1%}")


if __name__ == "__main__":
    main()
