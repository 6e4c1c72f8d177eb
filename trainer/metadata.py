"""Metadata of saved LoRAs: kohya's ss_* and sshs_* entries and Stability's modelspec, which ComfyUI managers and web UIs read.

Names and meaning: sd-scripts' documentation of its metadata, and Stability AI's ModelSpec 1.0.1.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import TrainConfig
from .data.cache import file_digest
from .data.records import Record
from .data.tags import count_tags
from .feed import caches_latents
from .files import plain_unicode
from .optim.schedules import warmup_steps
from .plan import Plan
from .seeds import derive

if TYPE_CHECKING:
    from torch import Tensor

    from .families import Model

CONFIG_ENTRY = "lora_furnace_config"  # the complete configuration as JSON


def build(plan: Plan, model: Model, method: Mapping[str, Any], started: float, finished: float, step: int) -> dict[str, str]:
    """All entries for a file saved after `step` steps; every value is text, nested ones JSON."""
    values = _training(plan, model) | _objective(plan.config) | _dataset(plan) | _files(model)
    values |= {f"ss_{name}": value for name, value in method.items()}
    values |= {
        "ss_session_id": derive(plan.config.train.seed, int(started * 1000)) % 2**32,
        "ss_training_started_at": started,
        "ss_training_finished_at": finished,
        "ss_steps": step,
        "ss_epoch": plan.epoch_of(step),
    }
    values |= _modelspec(plan, model, finished)
    texts = {name: json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value) for name, value in values.items()}
    texts[CONFIG_ENTRY] = json.dumps(plan.config.as_dict(), ensure_ascii=False)
    return {name: plain_unicode(text) for name, text in texts.items()}


def with_hashes(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a .safetensors file whose metadata holds kohya's two hashes of it."""
    from safetensors.torch import save

    kohya = {name: value for name, value in metadata.items() if name.startswith("ss_")}
    plain = save(tensors, kohya)
    header = 8 + int.from_bytes(plain[:8], "little")
    hashes = {
        "sshs_model_hash": hashlib.sha256(plain[header:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(plain[0x100000:0x110000]).hexdigest()[:8],
    }
    return save(tensors, {**metadata, **hashes})


def short_file_hash(path: Path) -> str:
    """The first eight hex digits of the digest of 64 KiB at 1 MiB, which old web UIs call the model hash."""
    with path.open("rb") as file:
        file.seek(0x100000)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


def tag_frequency(plan: Plan) -> dict[str, dict[str, int]]:
    """How often each tag stands in the captions of each folder that is learned from."""
    folders: dict[str, list[Record]] = defaultdict(list)
    for record in plan.records:
        if not record.regularization:
            folders[record.folder.name].append(record)
    return {folder: dict(count_tags(records, plan.config.dataset)) for folder, records in folders.items()}


def _training(plan: Plan, model: Model) -> dict[str, Any]:
    config = plan.config
    optimizer, schedule = config.optimizer, config.schedule
    version, _ = model.spec.marks[model.schedule.prediction]
    arguments = ",".join(f"{name}={value}" for name, value in optimizer.args.items())
    return {
        "ss_output_name": config.save.name,
        "ss_learning_rate": optimizer.lr,
        "ss_unet_lr": optimizer.unet_lr,
        "ss_text_encoder_lr": optimizer.text_encoder_lr,
        "ss_num_batches_per_epoch": plan.batches_per_epoch,
        "ss_num_epochs": plan.epochs,
        "ss_max_train_steps": plan.total_steps,
        "ss_gradient_accumulation_steps": config.train.gradient_accumulation,
        "ss_gradient_checkpointing": config.train.gradient_checkpointing,
        "ss_lr_scheduler": schedule.kind,
        "ss_lr_warmup_steps": warmup_steps(schedule, plan.total_steps),
        "ss_optimizer": optimizer.kind + (f"({arguments})" if arguments else ""),
        "ss_max_grad_norm": optimizer.max_grad_norm,
        "ss_mixed_precision": "no" if config.train.precision == "fp32" else config.train.precision,
        "ss_seed": config.train.seed,
        "ss_text_encoder_2_lr": optimizer.text_encoder_2_lr,
        "ss_v2": version.startswith("sd_v2"),
        "ss_base_model_version": version,
        "ss_zero_terminal_snr": model.schedule.zero_terminal_snr,
        "ss_weighted_captions": config.dataset.captions.weighted,
        "ss_clip_skip": model.clip_skip,
        "ss_max_token_length": model.tokenizer.limit,
        "ss_cache_latents": caches_latents(config),
        "ss_training_comment": config.save.comment,
    }


def _objective(config: TrainConfig) -> dict[str, Any]:
    loss, noise = config.loss, config.noise
    return {
        "ss_loss_type": loss.kind,
        "ss_huber_schedule": loss.huber_schedule,
        "ss_huber_c": loss.huber_c,
        "ss_huber_scale": loss.huber_scale,
        "ss_min_snr_gamma": loss.min_snr_gamma,
        "ss_debiased_estimation": loss.debiased,
        "ss_prior_loss_weight": loss.prior_weight,
        "ss_noise_offset": noise.offset or None,
        "ss_noise_offset_random_strength": noise.offset_random,
        "ss_adaptive_noise_scale": noise.adaptive_scale,
        "ss_multires_noise_iterations": noise.multires_iterations,
        "ss_multires_noise_discount": noise.multires_discount,
        "ss_ip_noise_gamma": noise.ip_gamma,
        "ss_ip_noise_gamma_random_strength": noise.ip_gamma_random,
    }


def _dataset(plan: Plan) -> dict[str, Any]:
    config = plan.config.dataset
    learned = [record for record in plan.records if not record.regularization]
    general = [record for record in plan.records if record.regularization]
    buckets: Counter[tuple[int, int]] = Counter()
    for repeats, placement in zip(plan.repeats(0), plan.placements, strict=True):
        buckets[placement.bucket] += repeats
    table = {str(i): {"resolution": list(size), "count": count} for i, (size, count) in enumerate(sorted(buckets.items()))}
    return {
        "ss_num_train_images": sum(record.repeats for record in learned),
        "ss_num_reg_images": sum(record.repeats for record in general),
        "ss_num_validation_images": len(plan.held_out),
        "ss_batch_size_per_device": config.batch_size,
        "ss_total_batch_size": config.batch_size * plan.config.train.gradient_accumulation * plan.team.size,
        "ss_resolution": "({}, {})".format(*config.resolution),
        "ss_shuffle_caption": config.captions.shuffle,
        "ss_keep_tokens": config.captions.keep_tokens,
        "ss_caption_dropout_rate": config.captions.dropout,
        "ss_caption_dropout_every_n_epochs": config.captions.dropout_every_epochs or 0,
        "ss_caption_tag_dropout_rate": config.captions.tag_dropout,
        "ss_flip_aug": config.augment.flip,
        "ss_random_crop": config.augment.random_crop,
        "ss_color_aug": config.augment.color > 0,
        "ss_enable_bucket": config.buckets.enabled,
        "ss_bucket_no_upscale": not config.buckets.upscale,
        "ss_dataset_dirs": _folders(learned),
        "ss_reg_dataset_dirs": _folders(general),
        "ss_tag_frequency": tag_frequency(plan),
        "ss_bucket_info": {"buckets": table},
    }


def _folders(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Repeats and number of pictures of each folder."""
    folders: dict[str, dict[str, int]] = {}
    for record in records:
        entry = folders.setdefault(record.folder.name, {"n_repeats": record.repeats, "img_count": 0})
        entry["img_count"] += 1
    return folders


def _files(model: Model) -> dict[str, Any]:
    """Names and hashes of the base model's files; a diffusers folder has a name only."""
    values: dict[str, Any] = {}
    for part, short, full, name in (
        ("model", "ss_sd_model_hash", "ss_new_sd_model_hash", "ss_sd_model_name"),
        ("vae", "ss_vae_hash", "ss_new_vae_hash", "ss_vae_name"),
    ):
        path = model.files.get(part)
        if path is None:
            continue
        values[name] = path.name
        if path.is_file():
            values |= {short: short_file_hash(path), full: file_digest(path)}
    return values


def _modelspec(plan: Plan, model: Model, finished: float) -> dict[str, Any]:
    width, height = plan.config.dataset.resolution
    values = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{model.spec.marks[model.schedule.prediction][1]}/lora",
        "implementation": model.spec.implementation,
        "title": plan.config.save.name,
        "resolution": f"{width}x{height}",
        "date": datetime.fromtimestamp(int(finished), timezone.utc).replace(tzinfo=None).isoformat(),
        "prediction_type": model.schedule.prediction,
        "encoder_layer": str(model.clip_skip),
    }
    first, end = plan.config.noise.min_timestep, plan.config.noise.max_timestep
    if first > 0 or end < model.schedule.num_timesteps:
        values["timestep_range"] = f"{first},{min(end, model.schedule.num_timesteps)}"
    return {f"modelspec.{name}": value for name, value in values.items()}
