"""What a training returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class TrainResult:
    """`artefact` is the file to use: the final one, or after a stop the newest. `files` are all saved ones in order."""

    status: Literal["done", "stopped"]
    artefact: Path | None
    files: tuple[Path, ...]
    run_dir: Path
    steps: int
    final_loss: float | None
    seconds: float
    losses: tuple[float, ...] = ()
    validation: tuple[tuple[int, float], ...] = ()  # (step, loss on held-out pictures)
    samples: tuple[Path, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "status": self.status,
            "lora": str(self.artefact) if self.artefact else None,
            "files": [str(path) for path in self.files],
            "run_dir": str(self.run_dir),
            "steps": self.steps,
            "final_loss": self.final_loss,
            "seconds": round(self.seconds, 3),
        }
