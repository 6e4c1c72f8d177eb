"""The thread beside ComfyUI's own, the node's display, and Cancel."""

from __future__ import annotations

import threading

import pytest
import torch
from fake_comfy import InterruptProcessingException
from loaded_pack import Pack


def test_work_has_its_own_thread_without_inference_mode(pack: Pack) -> None:
    shown, here = [], threading.get_ident()

    def work(listen, stop):
        listen("an event")
        return torch.is_inference_mode_enabled(), threading.get_ident() != here, stop()

    with torch.inference_mode():
        result = pack.part("nodes.bridge").run_beside(work, lambda event: shown.append((event, threading.get_ident())))
    assert result == (False, True, False)
    assert shown == [("an event", here)]


def test_errors_come_through(pack: Pack) -> None:
    def work(listen, stop):
        raise RuntimeError("as it is")

    with pytest.raises(RuntimeError, match="as it is"):
        pack.part("nodes.bridge").run_beside(work, print)
    assert pack.comfy.unloaded == 2


def test_interrupt_seen_by_the_progress_bar_reaches_the_trainer(pack: Pack) -> None:
    """ComfyUI's progress bar clears the flag when it raises."""
    asked = threading.Event()

    def work(listen, stop):
        pack.comfy.cancelled.set()
        listen("draw")
        asked.wait(5)
        assert stop(), "the trainer must still learn of it"
        return "partial"

    def show(_event):
        try:
            pack.comfy.throw_if_cancelled()
        finally:
            asked.set()

    with pytest.raises(InterruptProcessingException):
        pack.part("nodes.bridge").run_beside(work, show)
    assert not pack.comfy.cancelled.is_set()


def test_a_display_that_breaks_does_not_cost_the_work(pack: Pack, caplog: pytest.LogCaptureFixture) -> None:
    def work(listen, stop):
        for step in range(3):
            listen(step)
        return stop()

    shown = []

    def show(event):
        shown.append(event)
        raise RuntimeError("Event loop is closed")

    assert pack.part("nodes.bridge").run_beside(work, show) is False
    assert shown == [0, 1, 2]
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "Event loop is closed" in record.getMessage()


def test_display(pack: Pack) -> None:
    events = pack.part("trainer.events")
    display = pack.part("nodes.bridge").NodeDisplay("3")
    display(events.CacheProgress("latents", 4, 4))
    display(events.StepDone(step=1, total=8, epoch=1, loss=0.5, lr={"unet": 1e-4}, seconds=0.25, seconds_left=70))
    display(events.Finished("stopped", None, 1))
    assert [(value, total) for value, total, _ in pack.comfy.progress] == [(4, 4), (1, 8)]
    texts = [text for _, text in pack.comfy.texts]
    assert texts[0] == "encoding latents 4/4"
    assert texts[-1] == "stopped after 1 steps; queue the same again to go on"
