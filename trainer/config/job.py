"""The one frozen value that describes a training."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .base import BaseSection
from .dataset import DatasetSection
from .memory import MemorySection
from .method import Method
from .objective import LossSection, NoiseSection
from .optimizer import OptimizerSection, ScheduleSection
from .sample import SampleSection, ValidateSection
from .section import Section, option
from .train import SaveSection, TrainSection


class TrainConfig(Section):
    """Everything a training needs to know. Build it from keywords, `from_dict`, or `trainer.config.io.load`."""

    base: BaseSection
    dataset: DatasetSection
    method: Method = Method()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    loss: LossSection = LossSection()
    noise: NoiseSection = NoiseSection()
    train: TrainSection = TrainSection()
    memory: MemorySection = MemorySection()
    save: SaveSection = SaveSection()
    sample: SampleSection = SampleSection()
    validation: ValidateSection = Field(ValidateSection(), alias="validate")

    from_presets: tuple[str, ...] = option((), "For the record: the presets that were laid below these values.")

    def as_dict(self, *, full: bool = True) -> dict[str, Any]:
        """Plain values under the names that YAML uses; `io.from_dict` reads it back to an equal configuration.

        Unless `full`, only those that differ from the defaults.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=not full)
