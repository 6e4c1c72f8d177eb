"""What an adapter file's metadata says of its training: kohya's ss_* entries and Stability's modelspec."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TAGS_SHOWN, TRIGGERS = 30, 5
EVERYWHERE = 0.9  # share of the captions in which a trigger word stands

# Metadata entry -> how a person calls it, in the order shown. Empty values and None are left out.
_TRAINING = {
    "ss_output_name": "name",
    "ss_sd_model_name": "base model",
    "ss_network_module": "network",
    "ss_network_dim": "rank",
    "ss_network_alpha": "alpha",
    "ss_network_args": "network arguments",
    "ss_num_train_images": "pictures with repeats",
    "ss_resolution": "resolution",
    "ss_steps": "steps",
    "ss_epoch": "epoch",
    "ss_total_batch_size": "batch size",
    "ss_unet_lr": "learning rate",
    "ss_text_encoder_lr": "text encoder's rate",
    "ss_learning_rate": "common rate",
    "ss_optimizer": "optimizer",
    "ss_lr_scheduler": "schedule",
    "ss_lr_warmup_steps": "warm-up steps",
    "ss_clip_skip": "clip skip",
    "ss_min_snr_gamma": "min-SNR gamma",
    "ss_noise_offset": "noise offset",
    "ss_mixed_precision": "precision",
    "ss_seed": "seed",
    "modelspec.date": "date",
    "ss_training_comment": "comment",
}
_MODELS = ("ss_base_model_version", "modelspec.architecture")
_COMMON = frozenset(("a", "an", "and", "at", "by", "for", "from", "in", "into", "is", "of", "on", "the", "to", "with", "her", "his", "its"))
_WORD = re.compile(r"[^\W_][\w'-]*")


@dataclass(frozen=True)
class Origin:
    """The metadata, read."""

    metadata: dict[str, str]
    training: dict[str, str]
    tags: dict[str, int]  # the most frequent first
    triggers: dict[str, str]  # likely trigger words -> why

    def named_model(self) -> str:
        named = [self.metadata[name] for name in _MODELS if self.metadata.get(name)]
        return f" (metadata: {', '.join(named)})" if named else ""

    def lines(self) -> list[str]:
        lines = [f"{name}: {value}" for name, value in self.training.items()]
        if self.tags:
            shown = [f"{tag} ({count})" for tag, count in list(self.tags.items())[:TAGS_SHOWN]]
            rest = len(self.tags) - len(shown)
            lines.append(f"tags: {', '.join(shown)}" + (f" and {rest} more" if rest else ""))
        words = [f"{word} ({why})" for word, why in self.triggers.items()]
        return [*lines, f"trigger words: {', '.join(words) or 'none that the metadata would tell'}"]

    def as_dict(self) -> dict[str, Any]:
        return {"training": self.training, "tags": self.tags, "trigger_words": self.triggers, "metadata": self.metadata}


def read_origin(metadata: Mapping[str, str]) -> Origin:
    """Entries that are missing or damaged are passed over."""
    training = {title: metadata[name] for name, title in _TRAINING.items() if metadata.get(name) not in (None, "", "None", "{}")}
    tags = _tags(metadata)
    triggers: dict[str, str] = {}
    for word, why in _triggers(metadata, tags):
        triggers.setdefault(word, why)
    return Origin(dict(metadata), training, tags, dict(list(triggers.items())[:TRIGGERS]))


def _mapping(metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata.get(name, "{}"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _tags(metadata: Mapping[str, str]) -> dict[str, int]:
    """Of all folders together. Captions of sentences are one tag each."""
    counts: Counter[str] = Counter()
    for folder in _mapping(metadata, "ss_tag_frequency").values():
        if isinstance(folder, dict):
            counts.update({str(tag).strip(): int(count) for tag, count in folder.items() if str(count).isdigit()})
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0].casefold())))


def _triggers(metadata: Mapping[str, str], tags: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """What the file names itself, then what stands in nearly every caption, then the words of the folders."""
    if phrase := metadata.get("modelspec.trigger_phrase"):
        yield phrase, "named in the metadata"
    folders = _mapping(metadata, "ss_dataset_dirs")
    counts = (folder.get("img_count") for folder in folders.values() if isinstance(folder, dict))
    pictures = sum(count for count in counts if isinstance(count, int))
    everywhere = [tag for tag, count in tags.items() if pictures and count >= EVERYWHERE * pictures]
    if not everywhere and pictures:
        words: Counter[str] = Counter()
        for tag, count in tags.items():
            words.update(dict.fromkeys(set(_WORD.findall(tag.casefold())) - _COMMON, count))
        everywhere = [word for word, count in words.most_common() if count >= EVERYWHERE * pictures]
    yield from ((word, "in nearly every caption") for word in everywhere)
    for folder in folders:
        repeats, _, words_of_folder = str(folder).partition("_")
        if repeats.isdigit() and words_of_folder:
            yield words_of_folder, "name of the folder"
