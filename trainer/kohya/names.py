"""The table: every setting of kohya's that is understood, what it is called here, and what the scripts take by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import values as to


@dataclass(frozen=True)
class Row:
    """A setting of theirs is the setting `target` of ours. `note` says what is not quite the same."""

    target: str
    convert: to.Convert = to.text
    note: str = ""


OPTIMIZERS = {
    "": "adamw",
    "adamw": "adamw",
    "adamw8bit": "adamw8bit",
    "pagedadamw8bit": "paged_adamw8bit",
    "lion": "lion",
    "lion8bit": "lion8bit",
    "sgdnesterov": "sgd",
    "sgdnesterov8bit": "sgd8bit",
    "adafactor": "adafactor",
    "prodigy": "prodigy",
    "adamwschedulefree": "adamw_schedulefree",
}
SCHEDULES = {
    name: name for name in ("constant", "constant_with_warmup", "cosine", "cosine_with_restarts", "linear", "polynomial")
}  # fmt: skip
SAMPLERS = {
    "ddim": "ddim",
    "euler": "euler",
    "k_euler": "euler",
    "euler_a": "euler_ancestral",
    "k_euler_a": "euler_ancestral",
    "heun": "heun",
    "dpmsolver++": "dpmpp_2m",
}
LOSSES = {name: name for name in ("l2", "l1", "huber", "smooth_l1")}
FORMATS = {"no": "fp32", "float": "fp32", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}
# network_module, with `algo` of LyCORIS' arguments behind it; and what the window calls LoRA type.
MODULES = {
    "networks.lora": "lora",
    "networks.dylora": "dylora",
    "lycoris.kohya": "lora",
    "lycoris.kohya lora": "lora",
    "lycoris.kohya locon": "lora",
    "lycoris.kohya loha": "loha",
    "lycoris.kohya lokr": "lokr",
    "lycoris.kohya dylora": "dylora",
    "standard": "lora",
    "kohya locon": "lora",
    "kohya dylora": "dylora",
    "lycoris/locon": "lora",
    "lycoris/loha": "loha",
    "lycoris/lokr": "lokr",
    "lycoris/dylora": "dylora",
}
# LyCORIS' presets that leave convolutions larger than 1x1 out.
WITHOUT_CONVOLUTIONS = ("full-lin", "attn-mlp", "attn-only", "unet-transformer-only", "ia3")

# Other names of the same settings: of dataset descriptions, of the kohya_ss window, and an old misspelling.
ALIASES = {
    "batch_size": "train_batch_size",
    "max_resolution": "resolution",
    "optimizer": "optimizer_type",
    "caption_extention": "caption_extension",
}

_ACTS = "the scripts ignore it; here it acts"
# Their name, in lower case -> ours. `lr_warmup` is the window's, in percent.
ROWS: dict[str, Row] = {
    "pretrained_model_name_or_path": Row("base.checkpoint"),
    "vae": Row("base.vae"),
    "clip_skip": Row("base.clip_skip", to.or_off(to.whole)),
    "v_parameterization": Row("base.prediction", to.on("v")),
    "zero_terminal_snr": Row("base.zero_terminal_snr", to.switch),
    "base_weights": Row("base.loras", list),
    "resolution": Row("dataset.resolution", to.size),
    "train_batch_size": Row("dataset.batch_size", to.whole),
    "enable_bucket": Row("dataset.buckets.enabled", to.switch),
    "min_bucket_reso": Row("dataset.buckets.min_side", to.or_off(to.whole)),
    "max_bucket_reso": Row("dataset.buckets.max_side", to.or_off(to.whole)),
    "bucket_reso_steps": Row("dataset.buckets.step", to.whole),
    "bucket_no_upscale": Row("dataset.buckets.upscale", to.negated),
    "caption_extension": Row("dataset.captions.extensions", lambda value: [to.text(value)]),
    "caption_separator": Row("dataset.captions.separator", str),
    "shuffle_caption": Row("dataset.captions.shuffle", to.switch),
    "keep_tokens": Row("dataset.captions.keep_tokens", to.whole),
    "keep_tokens_separator": Row("dataset.captions.keep_tokens_separator", str),
    "caption_prefix": Row("dataset.captions.prefix", str),
    "caption_suffix": Row("dataset.captions.suffix", str),
    "caption_dropout_rate": Row("dataset.captions.dropout", to.number),
    "caption_dropout_every_n_epochs": Row("dataset.captions.dropout_every_epochs", to.or_off(to.whole)),
    "caption_tag_dropout_rate": Row("dataset.captions.tag_dropout", to.number),
    "enable_wildcard": Row("dataset.captions.wildcards", to.switch),
    "weighted_captions": Row("dataset.captions.weighted", to.switch),
    "max_token_length": Row("dataset.captions.max_tokens", to.whole),
    "alpha_mask": Row("dataset.alpha_mask", to.switch),
    "flip_aug": Row("dataset.augment.flip", to.switch),
    "random_crop": Row("dataset.augment.random_crop", to.switch),
    "color_aug": Row(
        "dataset.augment.color", to.on(1.0), "there a third of the uses change in hue or brightness, here each by its own amount"
    ),
    "loss_type": Row("loss.kind", to.one_of(LOSSES)),
    "huber_schedule": Row("loss.huber_schedule"),
    "huber_c": Row("loss.huber_c", to.number),
    "huber_scale": Row("loss.huber_scale", to.number),
    "min_snr_gamma": Row("loss.min_snr_gamma", to.or_off(to.number)),
    "debiased_estimation_loss": Row("loss.debiased", to.switch),
    "scale_v_pred_loss_like_noise_pred": Row("loss.scale_v_pred", to.switch),
    "v_pred_like_loss": Row("loss.v_pred_like", to.or_off(to.number)),
    "prior_loss_weight": Row("loss.prior_weight", to.number),
    "noise_offset": Row("noise.offset", to.number),
    "noise_offset_random_strength": Row("noise.offset_random", to.switch),
    "adaptive_noise_scale": Row("noise.adaptive_scale", to.or_off(to.number)),
    "multires_noise_iterations": Row("noise.multires_iterations", to.or_off(to.whole)),
    "multires_noise_discount": Row("noise.multires_discount", to.number),
    "ip_noise_gamma": Row("noise.ip_gamma", to.or_off(to.number)),
    "ip_noise_gamma_random_strength": Row("noise.ip_gamma_random", to.switch),
    "min_timestep": Row("noise.min_timestep", to.whole),
    "max_timestep": Row("noise.max_timestep", to.whole),
    "network_module": Row("method.adapter", to.one_of(MODULES)),
    "lora_type": Row("method.adapter", to.one_of(MODULES)),
    "network_dim": Row("method.rank", to.whole),
    "network_alpha": Row("method.alpha", to.number),
    "conv_dim": Row("method.conv_rank", to.or_off(to.whole)),
    "conv_alpha": Row("method.conv_alpha", to.or_off(to.number)),
    "dora_wd": Row("method.dora", to.switch),
    "use_tucker": Row("method.tucker", to.switch),
    "use_cp": Row("method.tucker", to.switch),
    "factor": Row("method.lokr_factor", to.whole),
    "decompose_both": Row("method.lokr_decompose_both", to.switch),
    "unit": Row("method.dylora_unit", to.whole),
    "down_lr_weight": Row("method.blocks.down", to.by_block),
    "mid_lr_weight": Row("method.blocks.mid", to.by_block),
    "up_lr_weight": Row("method.blocks.up", to.by_block),
    "block_lr_zero_threshold": Row("method.blocks.zero_threshold", to.number),
    "block_dims": Row("method.blocks.ranks", to.by_block),
    "block_alphas": Row("method.blocks.alphas", to.by_block),
    "conv_block_dims": Row("method.blocks.conv_ranks", to.by_block),
    "conv_block_alphas": Row("method.blocks.conv_alphas", to.by_block),
    "network_train_unet_only": Row("method.train_text_encoder", to.negated),
    "network_train_text_encoder_only": Row("method.train_unet", to.negated),
    "network_dropout": Row("method.dropout", to.number),
    "rank_dropout": Row("method.rank_dropout", to.number),
    "module_dropout": Row("method.module_dropout", to.number),
    "scale_weight_norms": Row("method.max_norm", to.or_off(to.number)),
    "network_weights": Row("method.continue_from"),
    "stop_text_encoder_training": Row("method.stop_text_encoder", to.or_off(to.whole), _ACTS),
    "stop_text_encoder_training_pct": Row("method.stop_text_encoder", to.percent_or_never, _ACTS),
    "optimizer_type": Row("optimizer.kind", to.one_of(OPTIMIZERS)),
    "optimizer_args": Row("optimizer.args", to.arguments),
    "text_encoder_lr": Row("optimizer.text_encoder_lr", to.number),
    "text_encoder_lr, second": Row("optimizer.text_encoder_2_lr", to.number),
    "loraplus_lr_ratio": Row("optimizer.lora_plus", to.or_off(to.number)),
    "learning_rate": Row("optimizer.lr", to.number),
    "unet_lr": Row("optimizer.unet_lr", to.number),
    "max_grad_norm": Row("optimizer.max_grad_norm", to.number),
    "lr_scheduler": Row("schedule.kind", to.one_of(SCHEDULES)),
    "lr_warmup_steps": Row("schedule.warmup", to.part_or_count),
    "lr_warmup": Row("schedule.warmup", to.percent),
    "lr_scheduler_num_cycles": Row("schedule.cycles", to.whole),
    "lr_scheduler_power": Row("schedule.power", to.number),
    "max_train_epochs": Row("train.epochs", to.whole),
    "max_train_steps": Row("train.steps", to.or_off(to.whole)),
    "mixed_precision": Row("train.precision", to.one_of(FORMATS)),
    "seed": Row("train.seed", to.whole),
    "gradient_accumulation_steps": Row("train.gradient_accumulation", to.whole),
    "gradient_checkpointing": Row("train.gradient_checkpointing", to.switch),
    "torch_compile": Row("train.compile", to.on("default")),
    "fp8_base": Row("memory.weights", to.on("fp8")),
    "fp8_base_unet": Row("memory.weights", to.on("fp8")),
    "output_dir": Row("save.dir"),
    "output_name": Row("save.name"),
    "save_every_n_epochs": Row("save.every_epochs", to.or_off(to.whole)),
    "save_every_n_steps": Row("save.every_steps", to.or_off(to.whole)),
    "save_precision": Row("save.dtype", to.one_of(FORMATS)),
    "training_comment": Row("save.comment"),
    "save_last_n_files": Row("save.keep_last", to.or_off(to.whole)),  # as `together` counts it
    "sample_every_n_epochs": Row("sample.every_epochs", to.or_off(to.whole)),
    "sample_every_n_steps": Row("sample.every_steps", to.or_off(to.whole)),
    "sample_at_first": Row("sample.at_start", to.switch),
    "sample_sampler": Row("sample.sampler", to.one_of(SAMPLERS)),
    "validation_split": Row("validate.split", to.number, "ours takes the share from all folders together"),
    "validate_every_n_epochs": Row("validate.every_epochs", to.or_off(to.whole)),
    "validate_every_n_steps": Row("validate.every_steps", to.or_off(to.whole)),
}

# Settings of one folder ("subset"), and of the whole command where there is one folder only.
FOLDER_ROWS: dict[str, Row] = {
    "image_dir": Row("path"),
    "num_repeats": Row("repeats", to.whole),
    "class_tokens": Row("class_words"),
    "is_reg": Row("regularization", to.switch),
    "conditioning_data_dir": Row("masks"),
}

# What the scripts take where a file says nothing. The window writes all of its settings, so that these do not apply to it.
DATASET_DEFAULTS: dict[str, Any] = {
    "train_batch_size": 1,
    "enable_bucket": False,
    "min_bucket_reso": 256,
    "max_bucket_reso": 1024,
    "bucket_reso_steps": 64,
    "caption_extension": ".caption",
}
TRAINING_DEFAULTS: dict[str, Any] = {
    "network_dim": 4,
    "network_alpha": 1,
    "optimizer_type": "AdamW",
    "learning_rate": 2e-6,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
    "max_train_steps": 1600,
    "mixed_precision": "no",
    "save_precision": "float",
    "save_every_n_epochs": 0,
    "sample_sampler": "ddim",
    "sample_every_n_epochs": 0,
}  # max_train_steps only where no number of epochs is given
