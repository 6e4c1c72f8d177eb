"""Model families. Adding one: a module with a `Family`, and a line in `FAMILIES`."""

from .base import PROMPT, AdapterTarget, Conditioning, Family, FamilySpec, Model, Reading, join
from .detect import find_family
from .loading import bring_unet, load_base
from .sd import StableDiffusion
from .sd_specs import SD2, SD15, SDXL

FAMILIES: dict[str, Family] = {family.spec.name: family for family in map(StableDiffusion, (SD15, SD2, SDXL))}

__all__ = [
    "FAMILIES",
    "PROMPT",
    "AdapterTarget",
    "Conditioning",
    "Family",
    "FamilySpec",
    "Model",
    "Reading",
    "find_family",
    "join",
    "bring_unet",
    "load_base",
]
