"""The floor of a training step: the bare UNet, forward and backward, on this machine, with nothing else.

    python benchmarks/floor.py --resolution 256 --steps 10

The input requires a gradient, so that the whole network is walked backward, as it is when the text encoder is trained.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from diffusers import UNet2DConditionModel

from trainer.families.sd_specs import SD15
from trainer.precision import DTYPES, resolve_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--precision", default="bf16", choices=tuple(DTYPES))
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device, dtype = resolve_device(options.device), DTYPES[options.precision]

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**SD15.configs["unet"]).requires_grad_(False)
    torch.nn.Module.to(unet, device, dtype, memory_format=torch.channels_last)
    side = options.resolution // 8
    latents = torch.randn(options.batch, 4, side, side, device=device, dtype=dtype)
    context = torch.randn(options.batch, 77, 768, device=device, dtype=dtype, requires_grad=True)
    timesteps = torch.full((options.batch,), 500, device=device)

    seconds = []
    for _ in range(options.warmup + options.steps):
        start = time.perf_counter()
        unet(latents, timesteps, encoder_hidden_states=context, return_dict=False)[0].float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    counted = seconds[options.warmup :]
    print(f"forward + backward: median {statistics.median(counted):.3f} s, min {min(counted):.3f}, max {max(counted):.3f}")


if __name__ == "__main__":
    main()
