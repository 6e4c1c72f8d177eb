"""What a saved file says of its adapter, in the words of kohya's and LyCORIS' programs."""

from __future__ import annotations

from typing import Any

from ..adapters import ADAPTERS
from ..config import AdapterSection
from .block_plan import BlockPlan
from .targets import rank_and_alpha

# LyCORIS' names of the algorithms' own options.
_ARGUMENTS = {
    "tucker": "use_tucker",
    "lokr_factor": "factor",
    "lokr_decompose_both": "decompose_both",
    "dylora_unit": "block_size",
}
# sd-scripts' names of our settings by block.
_BLOCK_SIZES = {"ranks": "block_dims", "alphas": "block_alphas", "conv_ranks": "conv_block_dims", "conv_alphas": "conv_block_alphas"}


def network_facts(section: AdapterSection, plan: BlockPlan | None = None) -> dict[str, Any]:
    """`network_module` and `network_args`: kohya's own module for plain LoRA and LoCon, LyCORIS for everything else."""
    arguments: dict[str, Any] = _block_settings(plan) if plan else {}
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


def _block_settings(plan: BlockPlan) -> dict[str, str]:
    """Numbers by block as sd-scripts writes them: a list per part for rates, one over all blocks for ranks and alphas."""
    if plan.table is None:
        return {}
    lists: dict[str, Any] = {}
    if plan.weights:
        lists |= {f"{part}_lr_weight": [plan.weights[block] for block in names] for part, names in plan.table.parts.items()}
    if plan.weights and plan.section.blocks.zero_threshold:
        lists["block_lr_zero_threshold"] = [plan.section.blocks.zero_threshold]
    for setting, name in _BLOCK_SIZES.items():
        if setting in plan.sizes:
            lists[name] = [plan.size(setting, block) for block in plan.table.blocks]
    return {name: ",".join(f"{value:g}" for value in values) for name, values in lists.items()}


def _own_options(section: AdapterSection) -> dict[str, Any]:
    """The options of the algorithm that are not at their default, and those that say what it is."""
    adapter = ADAPTERS[section.adapter]
    return {
        argument: getattr(section, name)
        for name, argument in _ARGUMENTS.items()
        if hasattr(adapter, name) and (getattr(section, name) or name in ("lokr_factor", "dylora_unit"))
    }
