"""The model family that an adapter file was made for, from the names of its modules and the widths of the layers they join."""

from __future__ import annotations

from collections.abc import Iterable

from ..adapters.stored import StoredModule
from ..errors import ModelFileError
from .base import FamilySpec
from .blocks import BlockTable, find_block_table

_CROSS = ("attn2_to_k", "attn2_to_v")  # layers of the UNet that read the text: as wide as the text encoders' output
_TEXT = "self_attn_q_proj"


def adapter_family(modules: Iterable[StoredModule], specs: Iterable[FamilySpec]) -> tuple[str | None, BlockTable | None]:
    """What a person calls the family, and the table of its blocks; None for what is not recognised."""
    modules, specs = list(modules), list(specs)
    try:
        table = find_block_table(module.name for module in modules)
    except ModelFileError:
        table = None
    widths = {module.name.replace(".", "_"): module.inputs() for module in modules}
    cross = {width for name, width in widths.items() if name.endswith(_CROSS)}
    own = [spec for spec in specs if cross & {spec.configs["unet"]["cross_attention_dim"]}]
    if not cross:
        text = {(name.split("_text_model")[0], width) for name, width in widths.items() if name.endswith(_TEXT)}
        own = [spec for spec in specs if text and text <= {(part.key, spec.configs[part.name]["hidden_size"]) for part in spec.text_parts}]
    known = [spec.blocks for spec in specs]
    if len(own) == 1:
        return own[0].title, own[0].blocks
    return (table.title if table is not None and table not in known else None), table
