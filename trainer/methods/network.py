"""What a saved file says of its adapter, in the words of kohya's and LyCORIS' programs."""

from __future__ import annotations

from typing import Any

from ..adapters import ADAPTERS
from ..config import AdapterSection
from .targets import rank_and_alpha

# LyCORIS' names of the algorithms' own options.
_ARGUMENTS = {
    "tucker": "use_tucker",
    "lokr_factor": "factor",
    "lokr_decompose_both": "decompose_both",
    "dylora_unit": "block_size",
}


def network_facts(section: AdapterSection) -> dict[str, Any]:
    """`network_module` and `network_args`: kohya's own module for plain LoRA and LoCon, LyCORIS for everything else."""
    arguments: dict[str, Any] = {}
    if section.conv_rank is not None:
        rank, alpha = rank_and_alpha(section, spatial=True)
        arguments |= {"conv_dim": rank, "conv_alpha": alpha}
    plain = section.adapter == "lora" and not section.dora and not section.tucker
    if not plain:
        arguments = {"algo": section.adapter, **arguments, **_own_options(section)}
    if section.dora:
        arguments |= {"dora_wd": True, "wd_on_output": False}
    arguments |= {name: rate for name in ("rank_dropout", "module_dropout") if (rate := getattr(section, name))}
    facts: dict[str, Any] = {
        "network_module": "networks.lora" if plain else "lycoris.kohya",
        **({"network_dropout": section.dropout} if section.dropout else {}),
        **({"scale_weight_norms": section.max_norm} if section.max_norm is not None else {}),
    }
    return facts | ({"network_args": {name: str(value) for name, value in arguments.items()}} if arguments else {})


def _own_options(section: AdapterSection) -> dict[str, Any]:
    """The options of the algorithm that are not at their default, and those that say what it is."""
    adapter = ADAPTERS[section.adapter]
    return {
        argument: getattr(section, name)
        for name, argument in _ARGUMENTS.items()
        if hasattr(adapter, name) and (getattr(section, name) or name in ("lokr_factor", "dylora_unit"))
    }
