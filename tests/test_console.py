from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.console import ConsoleListener, duration, shortened
from trainer.events import (
    BlocksPlanned,
    CacheProgress,
    CellDrawn,
    DatasetScanned,
    Finished,
    SampleReady,
    Saved,
    Status,
    StepDone,
    Validated,
    Warned,
)

ROOT = Path(__file__).parents[1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class OldTerminal(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="cp1252")


def step(number: int, total: int = 100, loss: float = 0.5, **changes) -> StepDone:
    values = {"epoch": 1, "lr": {"unet": 1e-4}, "seconds": 0.1, "seconds_left": (total - number) * 1.0}
    return StepDone(number, total, loss=loss, **{**values, **changes})


def test_without_a_terminal_there_is_a_line_every_tenth():
    stream = io.StringIO()
    listener = ConsoleListener(stream)
    for number in range(1, 101):
        listener(step(number))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0] == "step 1/100 (1%), epoch 1, loss 0.5000, lr 1.0e-04, ETA 1:39"
    assert lines[-1].startswith("step 100/100 (100%)")
    assert "\r" not in stream.getvalue()


def test_a_short_run_prints_every_step():
    stream = io.StringIO()
    listener = ConsoleListener(stream)
    for number in range(1, 4):
        listener(step(number, 3))
    assert len(stream.getvalue().splitlines()) == 3


def test_the_loss_is_the_mean_of_the_last_20_steps():
    stream = io.StringIO()
    listener = ConsoleListener(stream)
    for number in range(1, 41):
        listener(step(number, 40, loss=float(number)))
    assert "loss 30.5000" in stream.getvalue().splitlines()[-1]


def test_different_rates_are_named_and_an_unknown_eta_is_left_out():
    stream = io.StringIO()
    ConsoleListener(stream)(step(1, lr={"unet": 1e-4, "text_encoder": 5e-5}, seconds_left=None))
    assert stream.getvalue() == "step 1/100 (1%), epoch 1, loss 0.5000, lr unet 1.0e-04, lr text_encoder 5.0e-05\n"


def test_many_different_rates_are_a_range():
    stream = io.StringIO()
    ConsoleListener(stream)(step(1, lr={f"unet IN{i:02d}": 1e-4 * (i + 1) for i in range(4)}, seconds_left=None))
    assert stream.getvalue() == "step 1/100 (1%), epoch 1, loss 0.5000, lr 1.0e-04 to 4.0e-04\n"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Status("reading pictures"), "reading pictures"),
        (Warned("no captions"), "warning: no captions"),
        (BlocksPlanned([], "block  modules"), "block  modules"),
        (DatasetScanned(12, 2, {}), "12 pictures, 2 skipped"),
        (DatasetScanned(12, 0, {}), "12 pictures"),
        (Validated(20, 2, 0.125), "validation at step 20: loss 0.1250"),
        (Saved(20, 2, "lora", Path("x.safetensors")), "saved lora at step 20: x.safetensors"),
        (SampleReady(20, 2, "a dog", Path("s.png"), None), "sample at step 20: s.png (a dog)"),
        (Finished("stopped", Path("x.safetensors"), 7), "stopped after 7 steps: x.safetensors"),
        (Finished("stopped", None, 0), "stopped after 0 steps"),
    ],
)
def test_every_event_is_one_line(event, line):
    for stream in (io.StringIO(), Terminal()):
        ConsoleListener(stream)(event)
        assert line in stream.getvalue().replace("\r", "\n").splitlines()


def test_caching_is_quiet_until_it_is_complete():
    stream = io.StringIO()
    listener = ConsoleListener(stream)
    for number in range(1, 4):
        listener(CacheProgress("text", number, 3))
    assert stream.getvalue() == "cached text: 3\n"


def test_a_terminal_has_a_bar_and_lines_do_not_break_it():
    stream = Terminal()
    listener = ConsoleListener(stream)
    listener(CacheProgress("latents", 1, 1))
    listener(step(1, 2))
    listener(Warned("careful"))
    listener(step(2, 2))
    listener.finish()
    listener.finish()
    shown = stream.getvalue().replace("\r", "\n").splitlines()
    assert any(line.startswith("caching latents: 100%") for line in shown)
    assert any("2/2, epoch 1, loss 0.5000, lr 1.0e-04, ETA 0:00" in line for line in shown)
    assert "warning: careful" in shown, "the line stands alone"


def test_a_resumed_run_starts_in_the_middle():
    stream = Terminal()
    ConsoleListener(stream)(step(51))
    assert "| 50/100" in stream.getvalue()


def test_letters_the_terminal_lacks_do_not_end_the_run():
    stream = OldTerminal()
    ConsoleListener(stream)(Warned("猫"))
    stream.flush()
    assert stream.buffer.getvalue().rstrip() == b"warning: \\u732b"


def test_two_listeners_share_nothing():
    first, second = io.StringIO(), io.StringIO()
    ConsoleListener(first)(step(1, loss=1.0))
    ConsoleListener(second)(step(1, loss=3.0))
    assert "loss 3.0000" in second.getvalue()


def test_durations_and_long_texts():
    assert [duration(s) for s in (0, 5.4, 83, 3600, 7384)] == ["0:00", "0:05", "1:23", "1:00:00", "2:03:04"]
    assert shortened("a\n b") == "a b"
    assert len(shortened("x" * 100)) == 60


def test_grid_pictures_are_counted_not_listed():
    stream = io.StringIO()
    listener = ConsoleListener(stream)
    for number in (1, 2, 3):
        listener(CellDrawn(number, 3, image=None))
    assert stream.getvalue() == "pictures drawn: 3\n"


@pytest.mark.parametrize(("encoding", "command"), [("cp1252", ["presets", "--language", "zh"]), ("gbk", ["methods"])])
def test_output_that_the_terminals_encoding_lacks_is_escaped(encoding, command):
    """As where Windows sends the output of a program to a file."""
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-m", "trainer", *command], env=environment, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"\\" in done.stdout
