"""The `dataset` section."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from .section import Float, Int, Section, option
from .sizes import Resolution


class FolderSection(Section):
    """One folder of pictures."""

    path: str = option(..., "A folder of pictures, or the parent of folders named N_concept (N = repeats).")
    repeats: Int | None = option(None, "How often each picture counts per epoch; overrides N of N_concept.", ge=1, le=10000)
    class_words: str | None = option(None, "Caption of pictures that have none; overrides the words of N_concept.")
    regularization: bool = option(
        False, "Pictures of the class in general, so that the LoRA does not change it; as many of them per epoch as training pictures."
    )
    masks: str | None = option(
        None, "Folder of masks, black and white pictures with the names of the pictures: only what is white is learned."
    )


class CaptionSection(Section):
    """How captions are read and varied."""

    extensions: tuple[str, ...] = option((".txt", ".caption"), "Caption file endings, tried in this order.", advanced=True)
    missing: Literal["class_words", "empty", "skip", "refuse"] = option(
        "class_words",
        "A picture without a caption: use the folder's class words (skip it where there are none), train it with an empty text, "
        "skip it, or refuse to start.",
    )
    shuffle: bool = option(False, "Put the comma-separated tags into a new random order at each use.")
    keep_tokens: Int = option(0, "So many tags at the front stay where they are when shuffling.", ge=0, le=75)
    separator: str = option(",", "What separates tags.", min_length=1, advanced=True)
    keep_tokens_separator: str = option(
        "",
        "A mark such as |||: tags before the first one stay in front, those after a second one at the end; the mark itself is taken out.",
    )
    dropout: Float = option(0.0, "Share of uses in which a picture has an empty caption.", ge=0, le=1, step=0.05)
    dropout_every_epochs: Int | None = option(
        None, "Every so many epochs, one without any caption: 3 means the epochs 3, 6, 9 …", ge=1, advanced=True
    )
    tag_dropout: Float = option(
        0.0, "Share of tags left out at each use; tags that stay in place are never left out.", ge=0, le=1, step=0.05
    )
    prefix: str = option("", "Put before every caption, with a space; end it with a comma to make it a tag of its own.")
    suffix: str = option("", "Put behind every caption, with a space; begin it with a comma to make it a tag of its own.")
    wildcards: bool = option(
        False, "{red|blue} becomes one of the two at each use, {{ and }} a single brace; of several lines, one is used.", advanced=True
    )
    weighted: bool = option(
        False, "Read (word:1.2), (word) and [word] as emphasis; a backslash before a bracket makes it a letter.", advanced=True
    )
    max_tokens: Literal[75, 150, 225] = option(75, "The most tokens of a caption that are read, in chunks of 75.", advanced=True)


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


class AugmentSection(Section):
    """Pictures changed a little at each use, for datasets with few of them."""

    flip: bool = option(False, "Mirror half of the uses left to right; not for faces or text that must stay as they are.")
    random_crop: bool = option(False, "Crop at a random place instead of the middle. Encodes the picture at every step.")
    rotate: Float = option(
        0.0,
        "Turn by up to so many degrees, zoomed in so that no corner is empty. Encodes the picture at every step.",
        ge=0,
        le=45,
        step=1.0,
    )
    color: Float = option(
        0.0,
        "Strength of changes of colour; 1 is ±20 % brightness and contrast, ±30 % saturation, ±14 degrees of hue. "
        "Encodes the picture at every step.",
        ge=0,
        le=1,
        step=0.05,
    )


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
    augment: AugmentSection = option(AugmentSection(), "Augmentation.")
    alpha_mask: bool = option(
        False, "Use the pictures' alpha channel as a mask: what is transparent is not learned. With `masks` too, both count.", advanced=True
    )

    @model_validator(mode="after")
    def _something_to_learn(self) -> DatasetSection:
        if all(folder.regularization for folder in self.folders):
            raise ValueError("every folder is a regularization folder; add one with pictures to learn from")
        return self

    @field_validator("background")
    @classmethod
    def _colour(cls, value: str) -> str:
        from PIL import ImageColor

        ImageColor.getrgb(value)
        return value
