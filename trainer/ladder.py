"""What a run does, step by step, when a training step does not fit into memory."""

from __future__ import annotations

from typing import Any

from .config import TrainConfig
from .families import Family, Model


class Ladder:
    """Three measures, the cheapest first; each is taken once, the last one until single pictures go through the model:

    1. give back memory that is cached but not used,
    2. gradient checkpointing of all blocks, which computes the same numbers again instead of keeping them,
    3. half as many pictures at a time: their gradients are added up, so the batch of a step stays what it is.
    """

    def __init__(self, family: Family, model: Model, config: TrainConfig):
        self._family, self._model = family, model
        self._emptied = False
        self._checkpointed = 0  # every so many blocks; 0 is none
        self._pictures = min(config.memory.micro_batch or config.dataset.batch_size, config.dataset.batch_size)
        self.micro_batch = config.memory.micro_batch
        self._taken: dict[str, Any] = {}
        if config.train.gradient_checkpointing:
            self._checkpoint(config.memory.checkpoint_every)

    def down(self) -> str | None:
        """Take the next measure; returns it in words, or None where there is none left."""
        if not self._emptied:
            self._emptied = True
            return "once more after cached memory was given back"
        if self._checkpointed != 1:
            self._take(checkpointing=True)
            return "on with gradient checkpointing (train.gradient_checkpointing: true starts with it)"
        if self._pictures > 1:
            self._take(micro_batch=-(-self._pictures // 2))
            return f"on with {self.micro_batch} of a batch's pictures at a time (memory.micro_batch: {self.micro_batch} starts with it)"
        return None

    def state(self) -> dict[str, Any]:
        """The measures taken, for a resumed run: sums over other portions of a batch are rounded otherwise."""
        return dict(self._taken)

    def restore(self, taken: dict[str, Any]) -> str | None:
        """Take the measures of a saved run again; returns them in words. Settings that ask for still less memory hold."""
        if taken.get("micro_batch", self._pictures) >= self._pictures:
            taken = {name: value for name, value in taken.items() if name != "micro_batch"}
        self._take(**taken)
        portions = f", {self.micro_batch} pictures at a time" if "micro_batch" in taken else ""
        return f"memory was short before: on with gradient checkpointing{portions}" if taken else None

    def _take(self, **measures: Any) -> None:
        self._taken |= measures
        if measures.get("checkpointing"):
            self._checkpoint(1)
        if "micro_batch" in measures:
            self.micro_batch = self._pictures = measures["micro_batch"]

    def _checkpoint(self, every: int) -> None:
        if self._checkpointed != every:
            self._checkpointed = every
            self._family.enable_checkpointing(self._model, every)
