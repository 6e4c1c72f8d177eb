"""`demo`: stopped, it goes on with what it has; finished, it leaves its results alone."""

from __future__ import annotations

import pytest

from trainer.demo.run import run_demo
from trainer.errors import ConfigError
from trainer.events import CellDrawn, StepDone


class StopAfter:
    """Listens, and asks to stop after so many events of a kind."""

    def __init__(self, kind: type, count: int):
        self._kind, self._left = kind, count

    def listen(self, event) -> None:
        self._left -= isinstance(event, self._kind)

    def stop(self) -> bool:
        return self._left <= 0


def test_a_stopped_demo_goes_on_and_a_finished_one_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.demo.run.STRENGTHS", "0, 1")

    def demo(kind: type = StepDone, count: int = 99):
        watch = StopAfter(kind, count)
        return run_demo(tmp_path, 3, watch.listen, watch.stop)

    stopped = demo(StepDone, 2)
    assert (stopped.training.status, stopped.training.steps, stopped.grid) == ("stopped", 2, None)
    drawing = demo(CellDrawn, 1)
    assert (drawing.training.status, drawing.training.steps, drawing.grid) == ("done", 3, None)
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.png")}
    done = demo()
    assert done.grid == tmp_path / "grid.png" and done.heldout == drawing.heldout is not None
    assert cells and cells.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.png")}.items()
    with pytest.raises(ConfigError, match=r"--out: .*grid\.png exists already"):
        demo()
