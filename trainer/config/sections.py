"""The sections of a training configuration. Every field's help text is its documentation, in the README, CLI and nodes."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, field_validator, model_validator

from .section import Float, Int, Section, option

Size = tuple[int, int]


def parse_size(value: Any) -> Size:
    """(width, height) from 512, "512", "512x768", "512,768" or [512, 768]."""
    parts = re.split(r"[x×,]", value.lower()) if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    numbers = [int(part) for part in parts if re.fullmatch(r"\s*\d+\s*", str(part))]
    if len(numbers) != len(parts) or len(numbers) not in (1, 2):
        raise ValueError(f"expected a size such as 512 or 512x768, got {value!r}")
    width, height = numbers[0], numbers[-1]
    return width, height


def check_size(value: Size) -> Size:
    """Sizes that latents can have."""
    if any(side < 16 or side > 8192 or side % 8 for side in value):
        raise ValueError(f"sides must be multiples of 8 between 16 and 8192, got {value[0]}x{value[1]}")
    return value


Resolution = Annotated[Size, BeforeValidator(parse_size), AfterValidator(check_size)]


class BaseSection(Section):
    """The model that is trained on."""

    checkpoint: str = option(..., "A .safetensors or .ckpt file, or a diffusers folder.")
    family: str = option("auto", "Model family; auto reads it from the file's header.", advanced=True)
    vae: str | None = option(None, "A VAE file or folder used instead of the checkpoint's own.")
    clip_skip: Int = option(1, "Which text-encoder layer to use, counted from the end: 1 for realistic models, 2 for anime.", ge=1, le=12)
    tokenizer: str | None = option(
        None, "Folder with the tokenizer's vocab.json and merges.txt, if it is not beside the model.", advanced=True
    )


class FolderSection(Section):
    """One folder of pictures."""

    path: str = option(..., "A folder of pictures, or the parent of folders named N_concept (N = repeats).")
    repeats: Int | None = option(None, "How often each picture counts per epoch; overrides N of N_concept.", ge=1, le=10000)
    class_words: str | None = option(None, "Caption of pictures that have none; overrides the words of N_concept.")


class CaptionSection(Section):
    """How captions are read and varied."""

    extensions: tuple[str, ...] = option((".txt", ".caption"), "Caption file endings, tried in this order.", advanced=True)
    missing: Literal["class_words", "empty", "skip", "refuse"] = option(
        "class_words",
        "A picture without a caption: use the folder's class words (skip it where there are none), train it with an empty text, skip it, or refuse to start.",
    )
    shuffle: bool = option(False, "Put the comma-separated tags into a new random order at each use.")
    keep_tokens: Int = option(0, "So many tags at the front stay where they are when shuffling.", ge=0, le=75)
    separator: str = option(",", "What separates tags.", min_length=1, advanced=True)


class BucketSection(Section):
    """Aspect-ratio buckets: pictures are cropped as little as possible instead of being made square."""

    enabled: bool = option(True, "Group pictures by aspect ratio; off crops every picture to `resolution`.")
    min_side: Int | None = option(None, "Shortest side of a bucket in pixels; default half the resolution.", ge=8, advanced=True)
    max_side: Int | None = option(None, "Longest side of a bucket in pixels; default twice the resolution.", ge=8, advanced=True)
    step: Int = option(64, "Bucket sides are multiples of this.", ge=8, le=512, multiple_of=8, advanced=True)
    upscale: bool = option(True, "Enlarge pictures that are smaller than their bucket; off gives them a smaller bucket.")


class CacheSection(Section):
    """Encoded pictures and captions, kept between runs and found again by content."""

    dir: str | None = option(None, "Folder of the caches; default `.lora_furnace_cache` beside the outputs.", advanced=True)
    latents: bool = option(True, "Encode each picture once. Off encodes again at every step.", advanced=True)
    text: bool = option(True, "Encode each caption once, where the text encoder is not trained and captions do not vary.", advanced=True)


class DatasetSection(Section):
    """Pictures and captions."""

    folders: tuple[FolderSection, ...] = option(..., "Folders of pictures.", min_length=1)
    resolution: Resolution = option((512, 512), "Training size in pixels: 512, or 512x768 (width x height).")
    batch_size: Int = option(1, "Pictures per step. At 512x512: 1 with 6 GB, 4 to 6 with 12 GB.", ge=1, le=1024)
    background: str = option("white", "Colour behind transparent pictures: a name or #rrggbb.", advanced=True)
    unreadable: Literal["skip", "refuse"] = option("skip", "A damaged picture: skip it (it is listed), or refuse to start.", advanced=True)
    captions: CaptionSection = option(CaptionSection(), "How captions are read and varied.")
    buckets: BucketSection = option(BucketSection(), "Aspect-ratio buckets.")
    cache: CacheSection = option(CacheSection(), "Caches.")

    @field_validator("background")
    @classmethod
    def _colour(cls, value: str) -> str:
        from PIL import ImageColor

        ImageColor.getrgb(value)
        return value


class AdapterSection(Section):
    """Train a small adapter (LoRA) beside the frozen model."""

    kind: Literal["adapter"] = option("adapter", "Training method.")
    adapter: str = option("lora", "Adapter algorithm.")
    rank: Int = option(16, "Size of the adapter: 16 to 32 for anime, up to 128 for hard subjects.", ge=1, le=1024)
    alpha: Float = option(
        8.0, "Strength scale; alpha/rank multiplies the adapter. A quarter to half of rank is usual.", gt=0, le=4096, step=0.5
    )
    train_unet: bool = option(True, "Train the image part of the model.")
    train_text_encoder: bool = option(True, "Train the text encoder too.")


Method = AdapterSection  # a union discriminated by `kind` once there is a second method


class OptimizerSection(Section):
    """How weights follow gradients."""

    kind: str = option("adamw", "Optimizer.")
    lr: Float = option(1e-4, "Learning rate.", ge=0, le=10, step=1e-6)
    unet_lr: Float | None = option(None, "Learning rate of the image part; default `lr`.", ge=0, le=10, step=1e-6)
    text_encoder_lr: Float | None = option(None, "Learning rate of the text encoder; default `lr`.", ge=0, le=10, step=1e-6)
    max_grad_norm: Float = option(1.0, "Gradients are scaled down to this length; 0 switches clipping off.", ge=0, le=1e6, advanced=True)
    args: dict[str, Any] = option({}, "Further arguments of the optimizer, such as weight_decay: 0.02.", advanced=True)


class ScheduleSection(Section):
    """How the learning rate changes over the run."""

    kind: str = option("cosine", "Learning-rate schedule.")
    warmup: Float = option(0.05, "Warm-up: below 1 a part of all steps, from 1 on a number of steps.", ge=0, step=0.01)
    cycles: Int = option(1, "Number of cycles of cosine_with_restarts.", ge=1, le=1000, advanced=True)
    power: Float = option(1.0, "Power of the polynomial schedule.", gt=0, le=10, advanced=True)


class TrainSection(Section):
    """Length, precision, device."""

    epochs: Int = option(10, "How often the whole dataset is seen.", ge=1, le=100000)
    steps: Int | None = option(None, "Optimizer steps; wins over epochs when given.", ge=1, le=10_000_000)
    precision: Literal["fp32", "bf16", "fp16"] = option("bf16", "Number format of the frozen model. Adapters always train in fp32.")
    seed: Int = option(1, "Everything random follows from it.", ge=0, le=2**63 - 1)
    gradient_accumulation: Int = option(1, "Batches per optimizer step.", ge=1, le=1024, advanced=True)
    gradient_checkpointing: bool = option(False, "Saves memory, costs about a third of the speed.", advanced=True)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps, xpu …", advanced=True)


class SaveSection(Section):
    """What is written where."""

    dir: str = option("out", "Folder of the LoRA files.")
    name: str = option("my_lora", "Name of the LoRA; numbered files are saved on the way.", min_length=1, max_length=128)
    every_epochs: Int | None = option(1, "Save a numbered file every so many epochs.", ge=1)
    every_steps: Int | None = option(None, "Save a numbered file every so many steps.", ge=1)
    dtype: Literal["fp16", "bf16", "fp32"] = option("fp16", "Number format of the saved file.")
    run_dir: str | None = option(None, "Folder of log, samples and resumable state; default <dir>/<name>.", advanced=True)
    comment: str = option("", "Free text kept in the file's metadata.", advanced=True)

    @field_validator("name")
    @classmethod
    def _file_name(cls, value: str) -> str:
        if re.search(r'[\\/:*?"<>|\x00-\x1f]', value) or value.strip(" .") != value:
            raise ValueError(f'{value!r} cannot be a file name: leave out \\ / : * ? " < > | and outer spaces or dots')
        return value


class Prompt(Section):
    """One sample picture; what is not given comes from the `sample` section."""

    prompt: str = option(..., "Text of the picture.")
    negative: str | None = option(None, "What it should not show.")
    seed: Int | None = option(None, "Noise seed.", ge=0, le=2**64 - 1)
    size: Resolution | None = option(None, "Size in pixels, such as 512x768.")
    steps: Int | None = option(None, "Sampling steps.", ge=1, le=1000)
    cfg: Float | None = option(None, "Guidance scale.", ge=0, le=100)
    sampler: str | None = option(None, "Sampler.")
    scheduler: str | None = option(None, "Noise schedule.")


class SampleSection(Section):
    """Pictures drawn while training, to see what it learns."""

    prompts: tuple[Prompt, ...] = option((), "One text each, or prompt with its own negative, seed, size, steps, cfg, sampler.")
    every_epochs: Int | None = option(1, "Draw every so many epochs.", ge=1)
    every_steps: Int | None = option(None, "Draw every so many steps.", ge=1)
    at_start: bool = option(False, "Draw once before the first step.")
    negative: str = option("", "Negative prompt of all samples.")
    seed: Int = option(1, "Noise seed of all samples.", ge=0, le=2**64 - 1)
    size: Resolution | None = option(None, "Size in pixels; default the training resolution.")
    steps: Int = option(20, "Sampling steps.", ge=1, le=1000)
    cfg: Float = option(7.0, "Guidance scale.", ge=0, le=100, step=0.5)
    sampler: str = option("euler", "Sampler, named as in ComfyUI.")
    scheduler: str = option("normal", "Noise schedule, named as in ComfyUI.")

    @field_validator("prompts", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [line for line in value.splitlines() if line.strip()]
        if not isinstance(value, (list, tuple)):
            return value
        return tuple({"prompt": item} if isinstance(item, str) else item for item in value)


class ValidateSection(Section):
    """Loss on pictures that are held out of training, at fixed noise and timesteps."""

    split: Float = option(0.0, "Share of the pictures to hold out; 0 holds out none.", ge=0, le=0.9, step=0.05)
    folder: str | None = option(None, "A folder of held-out pictures, instead of a share of the training pictures.", advanced=True)
    every_epochs: Int | None = option(1, "Validate every so many epochs.", ge=1, advanced=True)
    every_steps: Int | None = option(None, "Validate every so many steps.", ge=1, advanced=True)

    @model_validator(mode="after")
    def _one_source(self) -> ValidateSection:
        if self.split and self.folder:
            raise ValueError("give either split or folder, not both")
        return self
