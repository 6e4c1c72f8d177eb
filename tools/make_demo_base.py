"""Trains the small text-to-image model that ships with the trainer, from nothing, on pictures that are drawn on the fly.

    python tools/make_demo_base.py --out trainer/demo/base --dataset trainer/demo/dataset --heldout trainer/demo/heldout

A stage whose result lies in --work is not repeated, and an interrupted one goes on from its last checkpoint.
Every random number is a function of the seed and the step.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from demo_check import adherence, sample_sheet
from demo_mascot import write_dataset
from demo_models import (
    SCALING_FACTOR,
    WIDTH,
    build_autoencoder,
    build_text_encoder,
    build_unet,
    encode_captions,
    load_tokenizer,
    noise_levels,
    save_folder,
    save_tokenizer,
    start_linear,
    whiten,
)
from demo_scenes import draw_doodle, draw_scene

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from PIL import Image
    from transformers import CLIPTextModel

HELD_OUT = 10_000_000
"""Scenes from this number on are never trained on."""


# ---------------------------------------------------------------- the loop


def learning_rate(step: int, steps: int, peak: float, warm_up: int = 50) -> float:
    """Linear warm-up, then a cosine down to nothing."""
    return peak * min(1.0, (step + 1) / warm_up) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def fit(
    name: str,
    model: torch.nn.Module,
    loss_of: Callable[[torch.nn.Module, torch.Generator], torch.Tensor],
    options: argparse.Namespace,
    steps: int,
    peak: float,
    average: torch.nn.Module | None = None,
) -> dict[str, object]:
    """Trains with AdamW and returns what to record; `average` follows the weights."""
    replicas = [model, *(_replica(model) for _ in range(1, options.threads))]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=peak, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    path, progress, recent = options.work / f"{name}.pt", {"step": 0, "seconds": 0.0, "losses": []}, []
    parts = {"model": model, "optimizer": optimizer} | ({"average": average} if average is not None else {})
    if path.exists():
        saved = torch.load(path, weights_only=False)
        progress = saved.pop("progress")
        for key, part in parts.items():
            part.load_state_dict(saved[key])
    first, started, before = progress["step"], time.time(), progress["seconds"]
    for step in range(first, first if options.export_now else steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        loss = _gradients(replicas, loss_of, (options.seed * 1_000_003 + step) * len(replicas))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if average is not None:
            decay = min(0.998, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        recent.append(loss)
        progress |= {"step": step + 1, "seconds": round(before + time.time() - started, 1)}
        if (step + 1) % 25 == 0 or step + 1 == steps:
            progress["losses"].append((step + 1, round(torch.stack(recent).mean().item(), 5)))
            recent.clear()
            pace = (time.time() - started) / (step + 1 - first)
            print(f"{name} {step + 1}/{steps} loss {progress['losses'][-1][1]:.4f} {pace:.3f} s/step", flush=True)
        if (step + 1) % 200 == 0 or step + 1 == steps:
            save({key: part.state_dict() for key, part in parts.items()} | {"progress": progress}, path)
    last = [loss for _, loss in progress["losses"][-10:]]
    return {"steps": progress["step"], "seconds": progress["seconds"], "final_loss": round(sum(last) / max(1, len(last)), 5)}


def _replica(model: torch.nn.Module) -> torch.nn.Module:
    """A second network with the same weights in memory, and gradients of its own."""
    other = copy.deepcopy(model)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        theirs.data = mine.data
    return other


def _gradients(replicas: list[torch.nn.Module], loss_of: Callable[..., torch.Tensor], seed: int) -> torch.Tensor:
    """Mean loss of one part of the batch per replica, each in a thread; leaves the mean gradient in the first.

    One thread per part, not per operator: the operators are too small to share, above all on a busy machine.
    """

    def one(number: int) -> torch.Tensor:
        replicas[number].zero_grad()
        loss = loss_of(replicas[number], torch.Generator().manual_seed(seed + number))
        loss.backward()
        return loss.detach()

    with ThreadPoolExecutor(len(replicas)) as pool:
        losses = list(pool.map(one, range(len(replicas))))
    for first, *others in zip(*(replica.parameters() for replica in replicas), strict=True):
        if first.grad is not None:
            first.grad = (first.grad + sum(other.grad for other in others)) / len(replicas)
    return torch.stack(losses).mean()


def save(value: object, path: Path) -> None:
    """Writes beside the file, then renames: an interruption leaves the old one."""
    torch.save(value, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


# ---------------------------------------------------------------- autoencoder and latents


def to_bytes(pictures: list[Image.Image]) -> torch.Tensor:
    """Pictures as (N, 3, H, W) uint8."""
    import numpy

    return torch.from_numpy(numpy.stack([numpy.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)


def to_unit(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 to floats from -1 to 1."""
    return (pictures.float() / 127.5 - 1).contiguous()


def train_autoencoder(options: argparse.Namespace) -> tuple[AutoencoderKL, dict[str, object]]:
    """The autoencoder, whitened, and what to record of its training."""
    torch.manual_seed(options.seed)
    model = build_autoencoder()
    done = options.work / "vae_done.pt"
    if done.exists():
        weights, record = torch.load(done, weights_only=False)
        model.load_state_dict(weights)
        return model.eval(), record
    start_linear(model)

    def loss_of(model: AutoencoderKL, generator: torch.Generator) -> torch.Tensor:
        batch = draw_batch(options, generator)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(batch).latent_dist
            mean, deviation = posterior.mean.float(), posterior.std.float()
            latents = mean + deviation * torch.randn(mean.shape, generator=generator)
            error = model.decode(latents).sample.float() - batch
        return error.abs().mean() + error.square().mean() + 5e-5 * posterior.kl().float().mean() / mean[0].numel()

    record = fit("vae", model, loss_of, options, options.vae_steps, 1e-3)
    latents = encode(model, to_bytes([draw_scene(options.seed, i).picture for i in range(2000)]))
    whiten(model, latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
    record["psnr_on_unseen_scenes"] = psnr(model, options.seed)
    save((model.state_dict(), record), done)
    return model.eval(), record


def draw_batch(options: argparse.Namespace, generator: torch.Generator) -> torch.Tensor:
    """Pictures for one replica, a third of them doodles."""
    numbers = torch.randint(HELD_OUT, (options.vae_batch // options.threads,), generator=generator).tolist()
    drawn = [draw_doodle(options.seed, i) if i % 3 == 0 else draw_scene(options.seed, i).picture for i in numbers]
    return to_unit(to_bytes(drawn))


def polish_decoder(model: AutoencoderKL, options: argparse.Namespace) -> dict[str, object]:
    """Trains the decoder alone: better pictures from the same latents, so the UNet need not wait for it."""
    model.requires_grad_(False)
    model.decoder.requires_grad_(True)
    model.post_quant_conv.requires_grad_(True)

    def loss_of(model: AutoencoderKL, generator: torch.Generator) -> torch.Tensor:
        batch = draw_batch(options, generator)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = model.encode(batch).latent_dist.mean.float()
                latents += 0.1 / SCALING_FACTOR * torch.randn(latents.shape, generator=generator)
            error = model.decode(latents).sample.float() - batch
        return error.abs().mean() + error.square().mean()

    record = fit("decoder", model, loss_of, options, options.decoder_steps, 6e-4)
    return record | {"psnr_on_unseen_scenes": psnr(model.eval(), options.seed)}


@torch.no_grad()
def encode(model: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Posterior means (N, 4, 16, 16) of uint8 pictures, not yet times the scaling factor."""
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([model.encode(to_unit(part)).latent_dist.mean.float() for part in pictures.split(64)])


@torch.no_grad()
def psnr(model: AutoencoderKL, seed: int, count: int = 256) -> float:
    """Mean peak signal-to-noise ratio of reconstructed unseen scenes, in decibels."""
    pictures = to_unit(to_bytes([draw_scene(seed, HELD_OUT + i).picture for i in range(count)]))
    error = torch.cat([model.decode(model.encode(part).latent_dist.mean).sample.clamp(-1, 1) - part for part in pictures.split(32)])
    return round((10 * torch.log10(4 / error.square().mean((1, 2, 3)))).mean().item(), 2)


def cache_scenes(model: AutoencoderKL, options: argparse.Namespace) -> tuple[torch.Tensor, list[str]]:
    """Latents of all training scenes, scaled for the UNet, and their captions."""
    path = options.work / "latents.pt"
    if not path.exists():
        latents, captions = [], []
        for start in range(0, options.scenes, 1000):
            scenes = [draw_scene(options.seed, i) for i in range(start, min(start + 1000, options.scenes))]
            latents.append(encode(model, to_bytes([scene.picture for scene in scenes])) * SCALING_FACTOR)
            captions += [scene.caption for scene in scenes]
            print(f"cached {len(captions)}/{options.scenes}", flush=True)
        save((torch.cat(latents), captions), path)
    return torch.load(path, weights_only=False)


# ---------------------------------------------------------------- text encoder and UNet


def train_text_encoder(latents: torch.Tensor, captions: list[str], options: argparse.Namespace) -> tuple[CLIPTextModel, dict[str, object]]:
    """A text encoder whose states after the caption's end tell the mean picture and the words of it; and what to record.

    Stable Diffusion's UNet too learns from a text encoder that already knows pictures (CLIP). Trained together from nothing,
    a small UNet needs many thousand steps before it reads captions at all.
    """
    torch.manual_seed(options.seed + 1)
    save_tokenizer(captions, options.out / "tokenizer")
    tokenizer = load_tokenizer(options.out / "tokenizer")
    tokens, nothing = encode_captions(tokenizer, captions), encode_captions(tokenizer, [""])
    pixels, words = latents[0].numel(), len(tokenizer)
    model = torch.nn.ModuleDict({"text_encoder": build_text_encoder(tokenizer), "head": torch.nn.Linear(WIDTH, pixels + words)})

    def loss_of(model: torch.nn.ModuleDict, generator: torch.Generator) -> torch.Tensor:
        part = options.text_batch // options.threads
        chosen = torch.randint(len(latents), (part,), generator=generator)
        dropped = torch.rand(part, 1, generator=generator) < 0.05
        written = torch.where(dropped, nothing, tokens[chosen])
        states = model["text_encoder"](written).last_hidden_state
        after = written == tokenizer.eos_token_id  # the padding too: CLIP's mask lets every token see all before it
        rows = after.nonzero()[:, 0]
        told = model["head"](states[after])
        present = torch.zeros(part, words).scatter_(1, written, 1.0)
        picture = (told[:, :pixels] - latents[chosen].flatten(1)[rows]).square().mean()
        return picture + torch.nn.functional.binary_cross_entropy_with_logits(told[:, pixels:], present[rows])

    record = fit("text", model, loss_of, options, options.text_steps, 1e-3)
    return model["text_encoder"].eval().requires_grad_(False), record


@torch.no_grad()
def encode_texts(encoder: CLIPTextModel, tokens: torch.Tensor) -> torch.Tensor:
    """The text encoder's last states, (N, 77, WIDTH), in half precision."""
    return torch.cat([encoder(part).last_hidden_state.half() for part in tokens.split(64)])


def train_unet(
    latents: torch.Tensor, captions: list[str], encoder: CLIPTextModel, options: argparse.Namespace
) -> tuple[UNet2DConditionModel, dict[str, object]]:
    """The UNet, from nothing; returns its running average and what to record."""
    torch.manual_seed(options.seed + 2)
    tokenizer = load_tokenizer(options.out / "tokenizer")
    texts = encode_texts(encoder, encode_captions(tokenizer, captions))
    nothing = encode_texts(encoder, encode_captions(tokenizer, [""]))
    model = build_unet()
    average = copy.deepcopy(model).requires_grad_(False)
    kept = noise_levels()

    def loss_of(model: UNet2DConditionModel, generator: torch.Generator) -> torch.Tensor:
        part = options.batch // options.threads
        chosen = torch.randint(len(latents), (part,), generator=generator)
        dropped = torch.rand(part, 1, 1, generator=generator) < 0.1
        words = torch.where(dropped, nothing, texts[chosen]).float()
        times = torch.randint(len(kept), (part,), generator=generator)
        clean = latents[chosen]
        # The last timestep still lets a flat picture's colour through: in training, the mean of the noisy latents tells it
        # as well as the caption does, but the noise that drawing starts from says nothing. A random mean hides it
        # (noise offset, as Guttenberg proposed in "Diffusion with offset noise"), so the colours must be read.
        noise = torch.randn(clean.shape, generator=generator) + 0.3 * torch.randn(part, 4, 1, 1, generator=generator)
        share = kept[times][:, None, None, None]
        noisy = share.sqrt() * clean + (1 - share).sqrt() * noise
        guess = model(noisy, times, words).sample
        error = (guess - noise).square().mean((1, 2, 3))
        # The weight makes it the loss in v (https://arxiv.org/abs/2202.00512). Without it, late timesteps count for almost
        # nothing, and only there the caption must settle the colours: later, the flat ones show through the noise.
        return (error * (1 / kept[times]).clamp(max=80)).mean()

    record = fit("unet", model, loss_of, options, options.steps, 1e-3, average)
    return average, record


# ---------------------------------------------------------------- command line


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model, in diffusers' layout")
    parser.add_argument("--dataset", type=Path, help="folder for the mascot's training pictures")
    parser.add_argument("--heldout", type=Path, help="folder for the mascot's held-out pictures (with --dataset)")
    parser.add_argument("--samples", type=Path, help="picture file for a sheet of samples")
    parser.add_argument("--work", type=Path, default=Path("demo_base_work"), help="folder for checkpoints and cached latents")
    parser.add_argument("--export-now", action="store_true", help="write what the last checkpoints hold instead of training on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vae-steps", type=int, default=2000)
    parser.add_argument("--vae-batch", type=int, default=8)
    parser.add_argument("--decoder-steps", type=int, default=1200, help="steps of the decoder alone, at the end")
    parser.add_argument("--scenes", type=int, default=16000)
    parser.add_argument("--text-steps", type=int, default=1500, help="steps of the text encoder")
    parser.add_argument("--text-batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5000, help="steps of the UNet")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(arguments)


def main() -> None:
    """Runs all stages and writes the folder with `training_record.json`."""
    options = parse()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.dataset and options.heldout:
        write_dataset(options.dataset, options.heldout)
    autoencoder, vae_record = train_autoencoder(options)
    latents, captions = cache_scenes(autoencoder, options)
    text_encoder, text_record = train_text_encoder(latents, captions, options)
    unet, unet_record = train_unet(latents, captions, text_encoder, options)
    decoder_record = polish_decoder(autoencoder, options)
    save_folder(options.out, autoencoder, unet, text_encoder)
    torch.set_num_threads(options.threads)
    if options.samples:
        sample_sheet(options.out, options.samples)
    hidden = ("out", "work", "dataset", "heldout", "samples", "export_now")
    record = {
        "options": {key: value for key, value in vars(options).items() if key not in hidden},
        "torch": torch.__version__,
        "autoencoder": vae_record,
        "decoder": decoder_record,
        "text_encoder": text_record,
        "unet": unet_record,
        "prompt_adherence": adherence(options.out),
    }
    (options.out / "training_record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
