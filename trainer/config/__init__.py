"""The description of a job: frozen sections, read from YAML, JSON, keywords or ComfyUI widgets."""

from .base import BaseSection, LoraFile
from .blocks import BlockSection
from .dataset import AugmentSection, BucketSection, CacheSection, CaptionSection, DatasetSection, FolderSection
from .io import from_dict, load, to_json, to_yaml
from .job import TrainConfig
from .memory import MemorySection
from .method import AdapterSection
from .objective import LossSection, NoiseSection
from .optimizer import OptimizerSection, ScheduleSection
from .sample import Prompt, SampleSection, ValidateSection
from .sizes import Size
from .train import SaveSection, TrainSection

__all__ = [
    "AdapterSection",
    "AugmentSection",
    "BaseSection",
    "BlockSection",
    "BucketSection",
    "CacheSection",
    "CaptionSection",
    "DatasetSection",
    "FolderSection",
    "LoraFile",
    "LossSection",
    "MemorySection",
    "NoiseSection",
    "OptimizerSection",
    "Prompt",
    "SampleSection",
    "SaveSection",
    "ScheduleSection",
    "Size",
    "TrainConfig",
    "TrainSection",
    "ValidateSection",
    "from_dict",
    "load",
    "to_json",
    "to_yaml",
]
