"""The one frozen value that describes a training."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .base import BaseSection
from .dataset import DatasetSection
from .method import Method
from .objective import LossSection, NoiseSection
from .optimizer import OptimizerSection, ScheduleSection
from .sample import SampleSection, ValidateSection
from .section import Section
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
    save: SaveSection = SaveSection()
    sample: SampleSection = SampleSection()
    validation: ValidateSection = Field(ValidateSection(), alias="validate")

    def as_dict(self) -> dict[str, Any]:
        """Plain values under the names that YAML uses; `io.from_dict` reads it back to an equal configuration."""
        return self.model_dump(mode="json", by_alias=True)
