"""Links between nodes as one configuration, and back."""

from __future__ import annotations

from ..trainer.config import AdapterSection, BaseSection, DatasetSection, TrainConfig
from . import host
from .settings import Training

_OWN_LINKS = ("base", "dataset", "method")  # the rest travels together, along LF_TRAINING


def config_of(
    base: BaseSection, dataset: DatasetSection, lora: AdapterSection | None = None, training: Training | None = None
) -> TrainConfig:
    """The configuration that links amount to."""
    return TrainConfig.model_validate({"base": base, "dataset": dataset, "method": lora or AdapterSection(), **(training or {})})


def with_cache(dataset: DatasetSection) -> DatasetSection:
    """The dataset with the one cache of all trainings, so that each picture is encoded and looked at only once."""
    return dataset.model_copy(update={"cache": dataset.cache.model_copy(update={"dir": str(host.output_folder() / ".cache")})})


def links_of(config: TrainConfig) -> tuple[BaseSection, DatasetSection, AdapterSection, Training]:
    """The links that amount to a configuration."""
    rest = {field.alias or name: getattr(config, name) for name, field in TrainConfig.model_fields.items() if name not in _OWN_LINKS}
    return config.base, config.dataset, config.method, rest
