"""The log of a run: what was written is read again, whatever the names and texts, and whatever a crash left."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import tiny

from trainer import check, train
from trainer.events import SampleReady, Saved, Warned
from trainer.log import LOG_FILE, RunLog, history, read_log


def written(folder: Path, *events) -> Path:
    log = RunLog(folder, None)
    for event in events:
        log(event)
    log.close()
    return folder / LOG_FILE


@pytest.mark.parametrize("text", ["a\u2028b", "a\u0085b", "猫", os.fsdecode(b"M\xfcller")])
def test_texts_and_names_come_back_as_they_were(tmp_path, text):
    path = written(tmp_path, SampleReady(2, 1, text, Path(text), None), Saved(3, 1, "lora", Path(text)))
    past = history(path)
    assert (past.samples, past.files, past.drawn) == ([Path(text)], [Path(text)], {2: 1})


def test_a_letter_that_was_cut_in_two_costs_its_line_only(tmp_path):
    path = written(tmp_path, Warned("猫"), Warned("犬"))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index("犬".encode()) + 1])
    assert [line["text"] for line in read_log(path)] == ["猫"]
    log = RunLog(tmp_path, 5)
    log(Warned("鳥"))
    log.close()
    assert [line["text"] for line in read_log(path)] == ["猫", "鳥"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are not UTF-8")
def test_pictures_whose_names_are_not_utf8_are_trained_on(job, tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    tiny.write_pictures(folder, 2)
    (folder / "00.png").rename(folder / os.fsdecode(b"\xe9.png"))
    (folder / "00.txt").rename(folder / os.fsdecode(b"\xe9.txt"))
    config = job(dataset={"folders": [{"path": str(folder)}], "batch_size": 1}, save={"tag_list": "alphabetical"})
    result = train(config)
    assert result.status == "done" and history(result.run_dir / LOG_FILE).files == [result.artefact]
    assert check(config).as_dict()["images"] == 2
