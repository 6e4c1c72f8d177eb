"""Two processes that share the work are one process with twice the batch."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch

from trainer import train
from trainer.config import from_dict, to_yaml
from trainer.distributed import ALONE, Team, team_of
from trainer.errors import ConfigError
from trainer.plan import make_plan

STEPS = 5


def process(environment: dict[str, str], work: Callable[..., None], *arguments) -> None:
    """One process of a team, as a launcher starts it."""
    os.environ.update(environment)
    work(*arguments)


def command(*arguments: str) -> None:
    from trainer.cli import main

    raise SystemExit(main(list(arguments)))


@pytest.fixture(scope="module")
def launch():
    """Runs a function in two processes at once, copies of one that has loaded everything already; returns their exit codes."""
    if not hasattr(os, "fork"):
        pytest.skip("the processes are copies")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_distributed", "trainer.run", "diffusers.models.unets.unet_2d_condition", "transformers"])

    def start(work, *arguments) -> list[int | None]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environments = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        processes = [context.Process(target=process, args=(each, work, *arguments), daemon=True) for each in environments]
        for each in processes:
            each.start()
        for each in processes:
            each.join(240)
        return [each.exitcode for each in processes]

    return start


@pytest.fixture
def make(job, tmp_path):
    """Makes a job that samples, validates, accumulates and drops ranks, written as a file in a folder of its own."""

    def made(name: str, batch_size: int, **train_section):
        folder = tmp_path / name
        plain = job(
            train={"steps": STEPS, "gradient_accumulation": 2, **train_section},
            sample={"prompts": ["a"], "steps": 1, "size": 64, "every_epochs": None},
            validate={"split": 0.2},
            save={"name": "shared", "dir": str(folder), "every_epochs": None, "every_steps": 2},
            method={"dropout": 0.2, "rank_dropout": 0.2, "module_dropout": 0.2, "train_text_encoder": False},
            optimizer={"kind": "sgd", "lr": 0.5},  # AdamW makes as much of a rounding error as of a gradient
        ).as_dict()
        plain["dataset"]["batch_size"] = batch_size
        config = from_dict(plain)
        folder.mkdir()
        (folder / "job.yaml").write_text(to_yaml(config), encoding="utf-8")
        return config, folder

    return made


def logged(folder: Path, event: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "shared" / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def close(first: Path, second: Path) -> bool:
    one, two = (tiny.tensors_of(path / "shared.safetensors") for path in (first, second))
    return one.keys() == two.keys() and all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


def test_two_processes_are_one_with_twice_the_batch(make, launch):
    whole, alone = make("alone", 2)
    losses = train(whole).losses
    _, folder = make("team", 1)
    assert launch(command, "train", str(folder / "job.yaml")) == [0, 0]
    steps = logged(folder, "StepDone")
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1)), "one writes, and only once"
    assert [line["loss"] for line in steps] == pytest.approx(losses, abs=1e-4)
    assert [line["bands"] for line in steps] == [
        [[band, count, pytest.approx(loss, abs=1e-4)] for band, count, loss in line["bands"]] for line in logged(alone, "StepDone")
    ]
    assert close(alone, folder)
    cached = [line for line in logged(folder, "CacheProgress") if line["kind"] == "latents"]
    entries = [sorted(path.name for path in (each / ".lora_furnace_cache").rglob("*.safetensors")) for each in (folder, alone)]
    assert len(cached) == 5 and entries[0] == entries[1]
    validation = [[line["loss"] for line in logged(each, "Validated")] for each in (folder, alone)]
    assert validation[0] == pytest.approx(validation[1], abs=1e-4)
    assert sorted(path.name for path in folder.rglob("*.png")) == sorted(path.name for path in alone.rglob("*.png"))


def stopped(file: str) -> None:
    """Only the second process is asked to stop, after its second step."""
    from trainer import loop
    from trainer.config.io import load
    from trainer.run import run

    done, update = [], loop._update
    loop._update = lambda job: (done.append(1), update(job))[1]
    with team_of(os.environ) as team:
        result = run(load(file), print, lambda: team.rank == 1 and len(done) >= 2, False, team)
        assert result.status == "stopped"


def test_one_that_is_asked_stops_all_and_another_number_of_processes_goes_on(make, launch):
    whole, alone = make("alone", 2)
    losses = train(whole).losses
    config, folder = make("team", 1)
    assert launch(stopped, str(folder / "job.yaml")) == [0, 0]
    assert [line["step"] for line in logged(folder, "StepDone")] == [1, 2]
    assert launch(command, "train", str(folder / "job.yaml"), "--resume", "--set", "train.steps=4") == [0, 0]
    twice = config.model_copy(update={"dataset": config.dataset.model_copy(update={"batch_size": 2})})
    result = train(twice, resume=True)
    assert result.losses == pytest.approx(losses, abs=1e-4) and close(alone, folder)


def short_of_memory(file: str) -> None:
    """The second process has too little memory in its second step, twice."""
    from trainer import loop
    from trainer.config.io import load
    from trainer.run import run

    calls, plain = [], loop.batch_loss

    def fails(*arguments):
        calls.append(1)
        if len(calls) in (3, 4) and os.environ["RANK"] == "1":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return plain(*arguments)

    loop.batch_loss = fails
    with team_of(os.environ) as team:
        assert run(load(file), print, lambda: False, False, team).status == "done"


def test_too_little_memory_in_one_process_is_known_to_all(make, launch):
    whole, alone = make("alone", 2)
    losses = train(whole).losses
    _, folder = make("team", 1)
    assert launch(short_of_memory, str(folder / "job.yaml")) == [0, 0]
    told = [line["text"] for line in logged(folder, "Warned") if "out of memory" in line["text"]]
    assert len(told) == 2 and "gradient checkpointing" in told[1]
    assert [line["loss"] for line in logged(folder, "StepDone")] == pytest.approx(losses, abs=1e-4)


def breaks(file: str) -> None:
    """The second process dies in its third step."""
    from trainer import loop
    from trainer.config.io import load
    from trainer.run import run

    done, update = [], loop._update

    def counted(job):
        done.append(1)
        if len(done) == 3 and job.team.rank == 1:
            os._exit(7)
        return update(job)

    loop._update = counted
    with team_of(os.environ) as team:
        run(load(file), print, lambda: False, False, team)


def test_a_process_that_dies_does_not_take_the_work_with_it(make, launch):
    config, folder = make("team", 1)
    codes = launch(breaks, str(folder / "job.yaml"))
    assert codes[1] == 7 and codes[0] != 0
    assert torch.load(folder / "shared" / "state.pt", weights_only=True)["step"] in (2, 3)
    twice = config.model_copy(update={"dataset": config.dataset.model_copy(update={"batch_size": 2})})
    assert train(twice, resume=True).status == "done"


def summed() -> None:
    """The second parameter has a gradient in one process, the third in none."""
    with team_of(os.environ) as team:
        parameters = [torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(3)]
        parameters[0].grad = torch.full((2, 2), 1.0 + team.rank)
        if team.rank == 1:
            parameters[1].grad = torch.full((2, 2), 5.0)
        team.sum_gradients(parameters)
        assert torch.equal(parameters[0].grad, torch.full((2, 2), 3.0))
        assert torch.equal(parameters[1].grad, torch.full((2, 2), 5.0))
        assert parameters[2].grad is None
        assert team.gather(f"from {team.rank}") == ["from 0", "from 1"]
        assert team.any(team.rank == 1) and not team.any(False)
        assert team.lead(team.rank) == 0


def test_what_a_team_exchanges(launch):
    assert launch(summed) == [0, 0]


def test_alone_nothing_is_exchanged():
    with team_of({}) as team:
        assert team is ALONE and team.leads
    parameter = torch.nn.Parameter(torch.zeros(1))
    team.sum_gradients([parameter])
    assert parameter.grad is None and team.gather(3) == [3] and team.lead(4) == 4 and team.any(True)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_shares_are_the_whole_batch(job, size):
    """Five pictures in batches of up to 2 for each process: nobody has more than 2, and the first has always something."""
    config = job(dataset={**job().dataset.model_dump(mode="json"), "batch_size": 2}, train={"steps": 7})
    plans = [make_plan(config, team=Team(rank, size, rank)) for rank in range(size)]
    whole = make_plan(job(dataset={**job().dataset.model_dump(mode="json"), "batch_size": 2 * size}, train={"steps": 7}))
    for (expected,), *shares in zip(whole.steps_from(0), *(plan.steps_from(0) for plan in plans), strict=True):
        micros = [micro for share in shares for micro in share]
        assert sum((micro.records for micro in micros), ()) == expected.records
        assert all(0 < len(micro.records) <= 2 for micro in micros) and shares[0]
        assert [micro.first for micro in micros] == [sum(len(m.records) for m in micros[:place]) for place in range(len(micros))]


def test_devices_of_a_team():
    team = Team(1, 2, 1)
    assert team.device(torch.device("cpu")) == torch.device("cpu")
    assert team.device(torch.device("cuda")) == torch.device("cuda", 1)
    assert ALONE.device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match=r"train\.device: cuda:0 is one device, but 2 processes share the work; set auto"):
        team.device(torch.device("cuda", 0))
