"""Model families. Adding one: a module with a `Family`, and a line in `FAMILIES`."""

from .base import AdapterTarget, Conditioning, Family, FamilySpec, Model
from .detect import find_family
from .sd import StableDiffusion
from .sd_specs import SD15

FAMILIES: dict[str, Family] = {family.spec.name: family for family in (StableDiffusion(SD15),)}

__all__ = ["FAMILIES", "AdapterTarget", "Conditioning", "Family", "FamilySpec", "Model", "find_family"]
