"""The description of a job: frozen sections, read from YAML, JSON, keywords or ComfyUI widgets."""

from .io import from_dict, load, to_yaml
from .job import TrainConfig
from .sections import (
    AdapterSection,
    BaseSection,
    BucketSection,
    CacheSection,
    CaptionSection,
    DatasetSection,
    FolderSection,
    OptimizerSection,
    Prompt,
    SampleSection,
    SaveSection,
    ScheduleSection,
    TrainSection,
    ValidateSection,
)

__all__ = [
    "AdapterSection",
    "BaseSection",
    "BucketSection",
    "CacheSection",
    "CaptionSection",
    "DatasetSection",
    "FolderSection",
    "OptimizerSection",
    "Prompt",
    "SampleSection",
    "SaveSection",
    "ScheduleSection",
    "TrainConfig",
    "TrainSection",
    "ValidateSection",
    "from_dict",
    "load",
    "to_yaml",
]
