"""The nodes. One module per subject; their ids and the names of their inputs are an API."""

from .advice import Advice
from .base_model import BaseModel, DemoBase
from .block_analysis import BlockAnalysis, BlockAnalysisTrainer
from .blocks import BlockWeightHook, BlockWeights, LoadLoraBlockWeight, SaveBlockWeightedLora
from .check import CheckTraining
from .class_pictures import DrawRegularization
from .configs import LoadConfiguration, SaveConfiguration
from .dataset import Dataset
from .dataset_options import Augmentation, Captions, LossMasks, RegularizationFolder
from .grids import Grid, GridTrainer
from .info import LoraInfo
from .loss import LossAnalysis
from .odd_pictures import OddPictures
from .presets import LoadPreset
from .queue import AddToQueue, QueueStatus
from .resume import ResumeTraining
from .settings import LoraSettings, LossNoise, Memory, Optimizer, Samples, Schedule, TrainingSettings
from .strength import StrengthTest, StrengthTestTrainer
from .train import TrainLora

NODE_CLASS_MAPPINGS = {
    "LoraFurnaceBaseModel": BaseModel,
    "LoraFurnaceDemoBase": DemoBase,
    "LoraFurnaceDataset": Dataset,
    "LoraFurnaceCaptions": Captions,
    "LoraFurnaceAugmentation": Augmentation,
    "LoraFurnaceMasks": LossMasks,
    "LoraFurnaceRegularization": RegularizationFolder,
    "LoraFurnaceDrawRegularization": DrawRegularization,
    "LoraFurnaceLora": LoraSettings,
    "LoraFurnaceBlockWeights": BlockWeights,
    "LoraFurnaceTraining": TrainingSettings,
    "LoraFurnaceOptimizer": Optimizer,
    "LoraFurnaceSchedule": Schedule,
    "LoraFurnaceLossNoise": LossNoise,
    "LoraFurnaceSamples": Samples,
    "LoraFurnaceMemory": Memory,
    "LoraFurnaceLoadPreset": LoadPreset,
    "LoraFurnaceSaveConfiguration": SaveConfiguration,
    "LoraFurnaceLoadConfiguration": LoadConfiguration,
    "LoraFurnaceCheck": CheckTraining,
    "LoraFurnaceTrainLora": TrainLora,
    "LoraFurnaceResume": ResumeTraining,
    "LoraFurnaceAddToQueue": AddToQueue,
    "LoraFurnaceQueueStatus": QueueStatus,
    "LoraFurnaceLossAnalysis": LossAnalysis,
    "LoraFurnaceOddPictures": OddPictures,
    "LoraFurnaceLoraInfo": LoraInfo,
    "LoraFurnaceStrengthTest": StrengthTest,
    "LoraFurnaceStrengthTestTrainer": StrengthTestTrainer,
    "LoraFurnaceGrid": Grid,
    "LoraFurnaceGridTrainer": GridTrainer,
    "LoraFurnaceAdvice": Advice,
    "LoraFurnaceLoadLoraBlockWeight": LoadLoraBlockWeight,
    "LoraFurnaceBlockWeightHook": BlockWeightHook,
    "LoraFurnaceSaveBlockWeightedLora": SaveBlockWeightedLora,
    "LoraFurnaceBlockAnalysis": BlockAnalysis,
    "LoraFurnaceBlockAnalysisTrainer": BlockAnalysisTrainer,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "LoraFurnaceBaseModel": "Base Model (LoRA Furnace)",
    "LoraFurnaceDemoBase": "Demo Base (LoRA Furnace)",
    "LoraFurnaceDataset": "Dataset Folder (LoRA Furnace)",
    "LoraFurnaceCaptions": "Captions (LoRA Furnace)",
    "LoraFurnaceAugmentation": "Augmentation (LoRA Furnace)",
    "LoraFurnaceMasks": "Loss Masks (LoRA Furnace)",
    "LoraFurnaceRegularization": "Regularisation Folder (LoRA Furnace)",
    "LoraFurnaceDrawRegularization": "Draw Regularisation Pictures (LoRA Furnace)",
    "LoraFurnaceLora": "LoRA Settings (LoRA Furnace)",
    "LoraFurnaceBlockWeights": "Block Weights (LoRA Furnace)",
    "LoraFurnaceTraining": "Training Settings (LoRA Furnace)",
    "LoraFurnaceOptimizer": "Optimizer (LoRA Furnace)",
    "LoraFurnaceSchedule": "Learning-Rate Schedule (LoRA Furnace)",
    "LoraFurnaceLossNoise": "Loss & Noise (LoRA Furnace)",
    "LoraFurnaceSamples": "Samples (LoRA Furnace)",
    "LoraFurnaceMemory": "Memory (LoRA Furnace)",
    "LoraFurnaceLoadPreset": "Load Preset (LoRA Furnace)",
    "LoraFurnaceSaveConfiguration": "Save Configuration (LoRA Furnace)",
    "LoraFurnaceLoadConfiguration": "Load Configuration (LoRA Furnace)",
    "LoraFurnaceCheck": "Check Training (LoRA Furnace)",
    "LoraFurnaceTrainLora": "Train LoRA (LoRA Furnace)",
    "LoraFurnaceResume": "Resume Training (LoRA Furnace)",
    "LoraFurnaceAddToQueue": "Add to Queue (LoRA Furnace)",
    "LoraFurnaceQueueStatus": "Queue Status (LoRA Furnace)",
    "LoraFurnaceLossAnalysis": "Loss Analysis (LoRA Furnace)",
    "LoraFurnaceOddPictures": "Find Odd Pictures (LoRA Furnace)",
    "LoraFurnaceLoraInfo": "LoRA Info (LoRA Furnace)",
    "LoraFurnaceStrengthTest": "LoRA Strength Test (LoRA Furnace)",
    "LoraFurnaceStrengthTestTrainer": "LoRA Strength Test, Trainer's Sampler (LoRA Furnace)",
    "LoraFurnaceGrid": "X/Y/Z Grid (LoRA Furnace)",
    "LoraFurnaceGridTrainer": "X/Y/Z Grid, Trainer's Sampler (LoRA Furnace)",
    "LoraFurnaceAdvice": "LoRA Advice (LoRA Furnace)",
    "LoraFurnaceLoadLoraBlockWeight": "Load LoRA (Block Weight) (LoRA Furnace)",
    "LoraFurnaceBlockWeightHook": "Block Weight LoRA Hook (LoRA Furnace)",
    "LoraFurnaceSaveBlockWeightedLora": "Save Block-Weighted LoRA (LoRA Furnace)",
    "LoraFurnaceBlockAnalysis": "LoRA Block Analysis (LoRA Furnace)",
    "LoraFurnaceBlockAnalysisTrainer": "LoRA Block Analysis, Trainer's Sampler (LoRA Furnace)",
}
