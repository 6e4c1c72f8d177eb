"""The composition root: builds everything from a configuration, in order, and runs the loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from .cheaper import advice
from .checkpoint import STATE_FILE, State, artefact_names, artefact_path, fingerprint, load_state
from .compiled import prepare
from .config import TrainConfig, to_yaml
from .data.cache import TensorCache
from .data.report import describe_dataset
from .data.tags import count_tags, tag_list
from .distributed import ALONE, Team
from .errors import ConfigError, OutOfMemory, OutputError, ResumeMismatch, RunFolderBusy, Stopped, first_line, forget_frames
from .evaluate.block_chart import draw_blocks
from .events import BlocksPlanned, DatasetScanned, Event, Finished, Listener, Status, StopCheck, Warned, ignore
from .families import FAMILIES, Family, Model, bring_unet, find_family, load_base
from .feed import Feed, caches_text, fill_caches, reading_of
from .files import clear_leftovers, replacing, require_space, write_text
from .ladder import Ladder
from .log import LOG_FILE, RunLog, history
from .loop import Job, run_loop
from .memory import is_out_of_memory, with_room
from .methods import METHODS, Method
from .methods.block_plan import BlockReport
from .objective import Objective, make_objective
from .optim import build_averaging, build_optimizer
from .optim.optimizers import OPTIMIZERS
from .periodic import Keeper, periodic_work
from .places import cache_dir_of, run_dir_of
from .plan import Plan, make_plan, without_effect
from .precision import DTYPES, LossScaler, release_memory, resolve_device
from .prediction_check import prediction_warning
from .preflight import check_family, check_length, check_places, check_settings
from .result import TrainResult
from .sample import Prompts, Request, requests

FINAL_LOSS_STEPS = 50  # final_loss is the mean over so many last steps


def run(config: TrainConfig, listen: Listener, stop: StopCheck, resume: bool, team: Team = ALONE) -> TrainResult:
    """One training from configuration to result; see `trainer.train`. Of a team, only the process that leads writes and reports."""
    started = time.time()
    try:
        # Whoever calls may have gradients switched off, as hosts that only draw do.
        with torch.inference_mode(False), torch.enable_grad():
            result = _run(config, listen if team.leads else ignore, stop, resume, started, team)
    except Stopped:
        listen(Finished("stopped", None, 0))
        result, reason = TrainResult("stopped", None, (), run_dir_of(config), 0, None, time.time() - started), ""
    except Exception as error:
        forget_frames(error)  # those of `_run` hold the model
        if not is_out_of_memory(error):
            _release(config)
            raise
        result, reason = None, first_line(error)
    _release(config)
    if result is None:
        raise OutOfMemory(f"{reason}. {advice(config, resolve_device(config.train.device))}")
    return result


def _release(config: TrainConfig) -> None:
    with suppress(ConfigError):  # the one about a device that is not there is on its way already
        release_memory(resolve_device(config.train.device))


def _run(config: TrainConfig, listen: Listener, stop: StopCheck, resume: bool, started: float, team: Team) -> TrainResult:
    warnings = check_settings(config)
    device = team.device(resolve_device(config.train.device))
    family = find_family(config.base.checkpoint, config.base.family, FAMILIES)
    check_family(config, family.spec)
    run_dir = run_dir_of(config)
    with ExitStack() as stack:
        if team.leads:
            check_places(config, run_dir, resume and (run_dir / STATE_FILE).is_file())
            stack.enter_context(_locked(run_dir))
            clear_leftovers(artefact_path(config).parent, artefact_names(config))
            clear_leftovers(run_dir)
            clear_leftovers(run_dir / "samples")
        listen(Status(f"found {family.spec.title} in {config.base.checkpoint}"))
        plan = make_plan(config, stop, team)
        warnings = list(dict.fromkeys([*warnings, *check_length(config, plan.total_steps), *without_effect(plan)]))
        listen(Status(f"loading the model on {device} in {config.train.precision}"))
        model = load_base(family, config.base, device, DTYPES[config.train.precision], config.memory, unet_waits=True)
        objective = make_objective(config.loss, config.noise, model.schedule)
        model.tokenizer = model.reader(reading_of(config.dataset.captions))
        mark = fingerprint(config, plan.digest(), model.identity, plan.total_steps, team.size)
        state = team.lead(_resumable(run_dir, mark, plan) if resume and team.leads else None)
        log = stack.enter_context(closing(RunLog(run_dir, state.step if state else None))) if team.leads else None

        def tell(event: Event) -> None:
            if log is not None:
                log(event)
            listen(event)

        if team.leads:
            _write_down(plan, run_dir)
        method = METHODS[config.method.kind](config.method, config.optimizer)
        blocks = method.report(family, model)
        _announce(plan, model, [*warnings, *(blocks.warnings if blocks else ()), *_resume_notes(run_dir, state, resume)], tell)
        if blocks and team.leads:
            _show_blocks(blocks, run_dir, config.save.name, tell)
        feed = _fill(plan, family, model, method, tell, stop, team)
        finished = False
        if not team.any(stop()):
            stack.callback(method.detach)
            wanted = requests(config.sample, config.dataset.resolution)
            prompts = _release_encoders(family, model, method, feed, wanted)
            bring_unet(model, config.memory)
            keeper = Keeper(plan, family, model, method, feed, prompts, wanted, run_dir, mark, started, tell, stop)
            job = _job(plan, family, model, method, feed, objective, keeper, state, tell, stop, team)
            finished = _train(job, keeper)
        result = _result(run_dir, finished, time.time() - started)
        tell(Finished(result.status, result.artefact, result.steps))
        return result


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """One training per run folder. The operating system frees the lock of a process that died."""
    try:
        with FileLock(run_dir / "run.lock", timeout=0):
            yield
    except Timeout:
        raise RunFolderBusy(f"another training is writing to {run_dir}; wait for it, or choose another save.name") from None


def _resumable(run_dir: Path, mark: dict[str, Any], plan: Plan) -> State | None:
    """The saved state, where there is one and the job can go on from it."""
    state = load_state(run_dir, mark)
    if state and state.step > plan.total_steps:
        raise ResumeMismatch(f"{run_dir} is at step {state.step} already, this job ends at {plan.total_steps}; set train.steps higher")
    return state


def _write_down(plan: Plan, run_dir: Path) -> None:
    """What was asked for: the configuration, and the tags of the captions where they are wanted."""
    config = plan.config
    write_text(run_dir / "config.yaml", to_yaml(config))
    if config.save.tag_list != "none":
        write_text(run_dir / f"{config.save.name}-tags.txt", tag_list(count_tags(plan.records, config.dataset), config.save.tag_list))


def _resume_notes(run_dir: Path, state: State | None, resume: bool) -> list[str]:
    if state is None:
        return [f"{run_dir} holds no saved state to resume; starting from the beginning"] if resume else []
    more = "from here on the learning rate follows the new length, so the result is not that of a run planned so long from the start"
    return [f"{'; '.join(state.changes)}: {more}"] if state.changes else []


def _announce(plan: Plan, model: Model, warnings: list[str], tell: Listener) -> None:
    """The dataset report, and everything that was passed over."""
    tokenizer = model.tokenizer
    dataset = plan.config.dataset
    report = describe_dataset(plan.scan, dataset, lambda caption: len(tokenizer.ids(caption)), tokenizer.limit, plan.held_out)
    for note in model.notes:
        tell(note)
    tell(DatasetScanned(len(plan.scan.records), len(plan.scan.skipped), report.as_dict()))
    skipped = [f"skipped {item.path}: {item.reason}" for item in plan.scan.skipped]
    long = [f"{item.path}: the caption has {item.tokens} tokens, those after {tokenizer.limit} are not read" for item in report.over_limit]
    for text in (*warnings, *plan.scan.warnings, *skipped, *long):
        tell(Warned(text))


def _show_blocks(blocks: BlockReport, run_dir: Path, title: str, tell: Listener) -> None:
    """The table of block-wise training as an event, and as blocks.png beside the log."""
    tell(BlocksPlanned(blocks.as_rows(), "\n".join(blocks.lines())))
    trained = [row for row in blocks.rows if row.modules]
    ranks = len({row.multiplier for row in trained}) == 1  # then it is the ranks that differ
    values = {row.block: float(row.rank if ranks else row.multiplier) for row in blocks.rows}
    picture = draw_blocks(
        blocks.table,
        values,
        present={row.block for row in trained},
        title=title,
        label="rank" if ranks else "learning-rate weight",
    )
    try:
        with replacing(run_dir / "blocks.png") as temporary:
            picture.save(temporary, format="PNG")
    except OutputError as error:
        tell(Warned(f"the picture of the blocks could not be saved: {error}"))


def _fill(plan: Plan, family: Family, model: Model, method: Method, tell: Listener, stop: StopCheck, team: Team) -> Feed:
    """The process that leads fills the caches; the others find them filled, or fill those of another machine."""
    tell(Status("encoding pictures and captions"))
    cache, text = TensorCache(cache_dir_of(plan.config)), caches_text(plan.config, method.trains_text)
    feed = fill_caches(plan, family, model, cache, text, tell, stop) if team.leads else None
    stopped = team.lead(stop())
    return feed or fill_caches(plan, family, model, cache, text, tell, lambda: stopped or stop())


def _release_encoders(family: Family, model: Model, method: Method, feed: Feed, wanted: list[Request]) -> Prompts:
    """Encoders whose work is done leave memory; sample prompts are encoded before."""
    prompts = Prompts(family, model)
    if feed.latents is not None and not wanted:
        model.vae = None
    if not method.trains_text and feed.texts is not None:
        prompts.remember([text for request in wanted for text in (request.prompt, request.negative)])
        model.text_encoders = {}
    return prompts


def _job(
    plan: Plan,
    family: Family,
    model: Model,
    method: Method,
    feed: Feed,
    objective: Objective,
    keeper: Keeper,
    state: State | None,
    tell: Listener,
    stop: StopCheck,
    team: Team,
) -> Job:
    """Method and optimizer, fresh or as they were saved."""
    config = plan.config
    for text in method.attach(family, model, config.train.seed):
        tell(Warned(text))
    ladder = Ladder(family, model, config)
    compilation, not_taken = prepare(model, config)
    if not_taken:
        tell(Warned(not_taken))
    groups = method.groups()
    optimizer = build_optimizer(config.optimizer, [{"params": g.parameters, "name": g.name, "lr": g.lr} for g in groups])
    scaler = LossScaler(model.device, model.dtype)
    rates = [group.lr for group in groups]
    averaging = build_averaging(config.optimizer, config.train.ema, optimizer)
    if team.leads:
        _require_room(keeper.run_dir, config, sum(parameter.numel() for group in groups for parameter in group.parameters))
    job = Job(plan, family, model, method, feed, objective, optimizer, rates, scaler, averaging, ladder, compilation, [], tell, stop, team)
    job.periodic = periodic_work(keeper, job) if team.leads else []
    if state is None and team.leads and (doubt := _doubt(job)):
        tell(Warned(doubt))
    if state is not None:
        tell(Status(f"resuming after step {state.step}"))
        method.restore(state.tensors)
        optimizer.load_state_dict(state.optimizer)
        scaler.restore(state.scaler)
        job.step = job.last_save = state.step
        if measures := ladder.restore(state.ladder):
            tell(Warned(measures))
        averaging.restore(state.averaging)
        job.done_before = keeper.done_before() if team.leads else set()
    return job


def _doubt(job: Job) -> str | None:
    """The doubt about what the model predicts; none where there is no memory to find out."""
    try:
        return with_room(
            lambda: prediction_warning(job.family, job.model, job.method, job.feed.first()), job.model.device, "looking at the model"
        )
    except OutOfMemory:
        return None


def _require_room(run_dir: Path, config: TrainConfig, parameters: int) -> None:
    """OutputError where the first save could not be written. A state in its place is not replaced before the next is whole."""
    file = parameters * DTYPES[config.save.dtype].itemsize
    state = parameters * (4 + OPTIMIZERS[config.optimizer.kind].state_bytes + (4 if config.train.ema is not None else 0))
    require_space(artefact_path(config).parent, file + state, "save.dir: LoRA and state")
    require_space(run_dir, state, "save.run_dir: the state")


def _train(job: Job, keeper: Keeper) -> bool:
    """Run the loop; work that ends between two saves is saved too, whatever ended it."""
    job.listen(Status(f"training {job.plan.total_steps} steps, {job.plan.epochs} epochs"))
    first = job.step
    finished = False
    try:
        finished = run_loop(job)
    except OutputError:
        raise  # it comes from the last save
    except Exception:
        job.optimizer.zero_grad(set_to_none=True)
        if job.team.leads and not job.torn:
            keeper.rescue(job, first)
        raise
    if not job.team.leads:
        return finished
    if not finished:
        keeper.save_unsaved(job, first)
    if job.plan.held_out and job.step > first:
        keeper.curve()  # with the last validation, which comes after the last save
    return finished


def _result(run_dir: Path, finished: bool, seconds: float) -> TrainResult:
    past = history(run_dir / LOG_FILE)
    last = past.losses[-FINAL_LOSS_STEPS:]
    return TrainResult(
        status="done" if finished else "stopped",
        artefact=past.files[-1] if past.files else None,
        files=tuple(past.files),
        run_dir=run_dir,
        steps=past.steps[-1] if past.steps else 0,
        final_loss=sum(last) / len(last) if last else None,
        seconds=seconds,
        losses=tuple(past.losses),
        validation=tuple(past.validation),
        samples=tuple(dict.fromkeys(past.samples)),
    )
