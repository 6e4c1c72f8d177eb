"""The queue: its order, what it records, and that no job is lost or done twice whoever dies."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trainer.cli import main
from trainer.queue import QueueFolder, run_queue
from trainer.queue.folder import _write_owner
from trainer.queue.status import status_of

ROOT = Path(__file__).parents[2]
needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 here")

# A training in small: it writes what it does into a journal, and then does what its file says.
FAKE = """
import json, os, select, signal, sys, time
journal, job = sys.argv[1:3]
word, _, rest = open(job).read().strip().partition(" ")
def note(what):
    with open(journal, "a") as file:
        file.write(f"{what} {os.path.basename(job)}\\n")
note("begin")
begun = open(journal).read().count(f"begin {os.path.basename(job)}\\n")
if word == "wait":
    while not os.path.exists(rest):
        if select.select([sys.stdin], [], [], 0.01)[0] and not sys.stdin.buffer.read(1):
            note("saved")
            sys.exit(130)
elif word == "die" and begun <= int(rest):
    os.kill(os.getpid(), signal.SIGKILL)
elif word == "crash":
    raise RuntimeError("something broke")
elif word == "refuse":
    print(json.dumps({"status": "failed", "kind": "ConfigError", "error": rest}))
    sys.exit(2)
elif word == "busy" and begun <= int(rest):
    print(json.dumps({"status": "failed", "kind": "RunFolderBusy", "error": "busy"}))
    sys.exit(2)
note("end")
print(json.dumps({"status": "done", "steps": 3, "final_loss": 0.5, "lora": "out/x.safetensors"}))
"""

QUEUE = """
import sys
from pathlib import Path
from trainer.queue import QueueFolder, run_queue
folder, journal, fake = sys.argv[1:]
command = lambda job: [sys.executable, "-S", "-c", fake, journal, str(job)]
run_queue(QueueFolder(Path(folder)), lambda: False, print, command=command, poll_seconds=0.02, beat_seconds=0.05)
"""


class Place:
    """A queue folder with fake trainings and their journal."""

    def __init__(self, folder: Path):
        self.folder, self.journal, self.said = folder / "queue", folder / "journal", []
        self.folder.mkdir()
        self.journal.touch()

    def put(self, **jobs: str) -> None:
        for name, text in jobs.items():
            (self.folder / f"{name}.yaml").write_text(text)

    def run(self, stop=lambda: False, **more):
        def command(job: Path) -> list[str]:
            return [sys.executable, "-S", "-c", FAKE, str(self.journal), str(job)]

        options = {"poll_seconds": 0.02, "beat_seconds": 0.05, **more}
        return run_queue(QueueFolder(self.folder), stop, self.said.append, command=command, **options)

    def process(self) -> subprocess.Popen:
        arguments = [sys.executable, "-c", QUEUE, str(self.folder), str(self.journal), FAKE]
        return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL)

    def notes(self) -> list[str]:
        return self.journal.read_text().splitlines()

    def names(self, part: str) -> list[str]:
        return [path.name for path in sorted((self.folder / part).glob("*.yaml"))]

    def result(self, part: str, name: str) -> dict:
        return json.loads((self.folder / part / f"{name}.yaml.result.json").read_text())

    def until(self, note: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while note not in self.notes():
            assert time.monotonic() < deadline, self.notes()
            time.sleep(0.01)


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def test_jobs_run_in_the_order_of_their_names(place):
    place.put(job10="ok", job2="ok", Job1="ok")
    counts = place.run()
    assert (counts.done, counts.failed, counts.stopped) == (3, 0, False)
    assert [note for note in place.notes() if note.startswith("begin")] == ["begin Job1.yaml", "begin job2.yaml", "begin job10.yaml"]
    assert place.names("done") == ["Job1.yaml", "job10.yaml", "job2.yaml"] and place.names("") == place.names("running") == []
    result = place.result("done", "job2")
    assert (result["status"], result["steps"], result["final_loss"]) == ("done", 3, 0.5) and result["seconds"] >= 0
    assert '"status": "done"' in (place.folder / "done" / "job2.yaml.log").read_text()
    assert sorted(path.name for path in (place.folder / "running").iterdir()) == []


def test_a_failed_job_is_recorded_with_its_reason_and_the_next_starts(place):
    place.put(a="refuse save.name: x exists already", b="crash", c="ok")
    counts = place.run()
    assert (counts.done, counts.failed) == (1, 2)
    assert place.result("failed", "a")["error"] == "save.name: x exists already"
    assert place.result("failed", "b")["error"] == "exit code 1: RuntimeError: something broke"
    lines = [row.line() for row in status_of(QueueFolder(place.folder))]
    assert lines == [
        "failed   a.yaml: save.name: x exists already",
        "failed   b.yaml: exit code 1: RuntimeError: something broke",
        "done     c.yaml: 3 steps, loss 0.5000, out/x.safetensors",
    ]
    (place.folder / "failed" / "a.yaml").rename(place.folder / "a.yaml")
    (place.folder / "a.yaml").write_text("ok")
    assert place.run().done == 1
    assert place.names("failed") == ["b.yaml"]


def test_jobs_are_added_reordered_and_removed_while_one_runs(place, tmp_path):
    place.put(a=f"wait {tmp_path / 'go'}", b="ok", c="ok", d="ok")
    thread = threading.Thread(target=place.run)
    thread.start()
    place.until("begin a.yaml")
    place.put(aa="ok")  # added, before the others
    (place.folder / "d.yaml").rename(place.folder / "ab.yaml")
    (place.folder / "c.yaml").unlink()
    (tmp_path / "go").touch()
    thread.join(60)
    begun = [note.split()[1] for note in place.notes() if note.startswith("begin")]
    assert begun == ["a.yaml", "aa.yaml", "ab.yaml", "b.yaml"]


def test_a_running_job_that_is_deleted_stops(place, tmp_path):
    place.put(a=f"wait {tmp_path / 'never'}", b="ok")
    thread = threading.Thread(target=place.run)
    thread.start()
    place.until("begin a.yaml")
    (place.folder / "running" / "a.yaml").unlink()
    thread.join(60)
    assert place.notes() == ["begin a.yaml", "saved a.yaml", "begin b.yaml", "end b.yaml"]
    assert list((place.folder / "running").iterdir()) == [] and place.names("done") == ["b.yaml"]


def test_a_stopped_queue_goes_on_with_the_job_it_had(place, tmp_path):
    place.put(b=f"wait {tmp_path / 'go'}")
    counts = place.run(stop=lambda: "begin b.yaml" in place.notes())
    assert counts.stopped and place.notes() == ["begin b.yaml", "saved b.yaml"] and place.names("running") == ["b.yaml"]
    place.put(a="ok")
    (tmp_path / "go").touch()
    assert place.run().done == 2
    assert place.notes()[2:] == ["begin b.yaml", "end b.yaml", "begin a.yaml", "end a.yaml"], "the job that was begun comes first"
    assert any(text.startswith("b.yaml: going on") for text in place.said)


@needs_kill
def test_a_job_that_is_killed_is_started_again_but_not_for_ever(place):
    place.put(a="die 2", b="die 99", c="ok")
    counts = place.run()
    assert (counts.done, counts.failed) == (2, 1)
    assert place.notes().count("begin a.yaml") == 3
    assert place.result("failed", "b")["error"] == "its process was ended 3 times by signal 9"


def test_a_job_whose_folder_is_busy_waits(place):
    """As when the training of a queue that was killed is still saving."""
    place.put(a="busy 2")
    assert place.run().done == 1 and place.notes().count("begin a.yaml") == 3


@needs_kill
def test_the_queue_is_killed(place, tmp_path):
    """Its training stops by itself, with its work saved; the next queue goes on with it at once."""
    place.put(a=f"wait {tmp_path / 'go'}", b="ok")
    process = place.process()
    place.until("begin a.yaml")
    process.kill()
    process.wait(30)
    place.until("saved a.yaml")
    assert place.names("running") == ["a.yaml"]
    (tmp_path / "go").touch()
    assert place.run().done == 2
    assert [note.split()[0] for note in place.notes()] == ["begin", "saved", "begin", "end", "begin", "end"]


def test_two_processes_never_run_a_job_twice(place):
    place.put(**{f"job{number}": "ok" for number in range(12)})
    processes = [place.process() for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    notes = place.notes()
    assert sorted(notes) == sorted(f"{word} job{number}.yaml" for word in ("begin", "end") for number in range(12))
    assert len(place.names("done")) == 12 and place.names("") == []


def test_an_owner_on_another_machine_lives_as_long_as_its_heart_beats(place, monkeypatch):
    clock = itertools.count()
    time_now = [0.0]
    queue = QueueFolder(place.folder, stale=60, now=lambda: time_now[0])
    (place.folder / "running").mkdir()
    job = place.folder / "running" / "a.yaml"
    job.write_text("ok")

    def beats(number: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("trainer.queue.folder.socket.gethostname", lambda: "another machine")
            _write_owner(job, "they", number)

    beats(next(clock))
    assert queue.claim() is None and queue.undecided(), "it may be alive or dead"
    for time_now[0] in (50.0, 100.0, 150.0):
        beats(next(clock))
        assert queue.claim() is None and not queue.undecided()
    time_now[0] = 209.0
    assert queue.claim() is None
    time_now[0] = 211.0
    claim = queue.claim()
    assert claim is not None and claim.resumed and claim.path == job
    assert queue.beat(claim, 1)
    beats(next(clock))  # they wake up and write: the job is theirs again, and we must leave it
    assert not queue.beat(claim, 2) and queue.finish(claim, {"status": "done"}) is None


def test_an_owner_of_this_machine_that_is_dead_is_known_at_once(place):
    if os.name != "posix":
        pytest.skip("known by its heart alone here")
    queue = QueueFolder(place.folder)
    (place.folder / "running").mkdir()
    job = place.folder / "running" / "a.yaml"
    job.write_text("ok")
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait(30)
    _write_owner(job, "they", 3)
    owner = job.with_name("a.yaml.owner")
    owner.write_text(json.dumps({**json.loads(owner.read_text()), "pid": gone.pid}))
    assert queue.claim().resumed
    assert queue.claim() is None, "now it is ours, and we live"


def test_an_owner_whose_process_number_is_ours_by_now_is_waited_for(place):
    """As after a restart of a container: the same machine, the same number, and nobody who trains."""
    time_now = [0.0]
    queue = QueueFolder(place.folder, stale=60, now=lambda: time_now[0])
    (place.folder / "running").mkdir()
    job = place.folder / "running" / "a.yaml"
    job.write_text("ok")
    _write_owner(job, "they", 3)
    assert queue.claim() is None and queue.undecided()
    time_now[0] = 61.0
    assert queue.claim().resumed


def test_names_that_are_taken_get_a_number(place):
    queue = QueueFolder(place.folder)
    assert [queue.add("a.yaml", "ok").name for _ in range(3)] == ["a.yaml", "a_2.yaml", "a_3.yaml"]
    place.run()
    place.put(a="refuse because")
    place.run()
    place.put(a="ok")
    place.run()
    assert place.names("done") == ["a.yaml", "a_2.yaml", "a_3.yaml", "a_4.yaml"] and place.names("failed") == ["a.yaml"]


def test_the_command_adds_shows_and_trains(job, tmp_path, capsys):
    """Real trainings: a good one, and one that is refused."""
    from trainer.config import to_yaml

    folder = tmp_path / "queue"
    (tmp_path / "cat.yaml").write_text(to_yaml(job(train={"steps": 2})), encoding="utf-8")
    assert main(["queue", str(folder), "--add", str(tmp_path / "cat.yaml"), "--set", "save.name=first"]) == 0
    assert main(["queue", str(folder), "--add", str(tmp_path / "cat.yaml"), "--set", "base.checkpoint=missing.safetensors"]) == 0
    assert main(["queue", str(folder), "--add", str(tmp_path / "cat.yaml"), "--set", "method.rank=0"]) == 2
    capsys.readouterr()
    assert main(["queue", str(folder), "--status"]) == 0
    assert capsys.readouterr().out == "waiting  cat.yaml\nwaiting  cat_2.yaml\n"
    assert main(["queue", str(folder), "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"status": "failed", "done": 1, "failed": 1}
    assert main(["queue", str(folder), "--json"]) == 0, "nothing is left to fail"
    capsys.readouterr()
    assert (tmp_path / "out" / "first.safetensors").is_file()
    main(["queue", str(folder), "--status"])
    failed, done = capsys.readouterr().out.splitlines()
    assert "missing.safetensors" in failed and done.startswith("done     cat.yaml: 2 steps, loss ")


@pytest.mark.parametrize("idle", [["--set", "train.steps=2"], ["--preset", "vram_6"]])
def test_settings_without_a_file_to_add_are_refused(tmp_path, idle, capsys):
    assert main(["queue", str(tmp_path), *idle]) == 2
    assert f"{idle[0]}: acts only together with --add" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--status"], ["--watch"], ["--add", "cat.yaml"]])
def test_a_file_is_no_queue(tmp_path, more, capsys):
    (tmp_path / "cat.yaml").touch()
    assert main(["queue", str(tmp_path / "cat.yaml"), *more]) == 2
    assert "cat.yaml is a file" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--status"]])
def test_a_name_that_is_mistyped_makes_no_queue(tmp_path, more, capsys):
    assert main(["queue", str(tmp_path / "quue"), *more]) == 2
    assert "quue does not exist" in capsys.readouterr().err and not (tmp_path / "quue").exists()
