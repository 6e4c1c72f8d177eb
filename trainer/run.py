"""The composition root: builds everything from a configuration, in order, and runs the loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .checkpoint import STATE_FILE, State, artefact_path, fingerprint, load_state
from .config import TrainConfig, to_yaml
from .data.cache import TensorCache
from .data.report import describe_dataset
from .data.tags import count_tags, tag_list
from .errors import NonFiniteLoss, OutputError, RunFolderBusy, Stopped
from .evaluate.block_chart import draw_blocks
from .events import BlocksPlanned, DatasetScanned, Event, Finished, Listener, Status, StopCheck, Warned
from .families import FAMILIES, Family, Model, find_family, load_base
from .feed import Feed, caches_text, fill_caches, reading_of
from .files import clear_leftovers, replacing, write_text
from .log import RunLog
from .loop import Job, run_loop
from .methods import METHODS, Method
from .methods.block_plan import BlockReport
from .objective import Objective, make_objective
from .optim import build_averaging, build_optimizer
from .periodic import Keeper, periodic_work
from .plan import Plan, make_plan, without_effect
from .precision import DTYPES, LossScaler, release_memory, resolve_device
from .prediction_check import prediction_warning
from .preflight import cache_dir_of, check_family, check_length, check_places, check_settings, run_dir_of
from .result import TrainResult
from .sample import Prompts, Request, requests

FINAL_LOSS_STEPS = 50  # final_loss is the mean over so many last steps


def run(config: TrainConfig, listen: Listener, stop: StopCheck, resume: bool) -> TrainResult:
    """One training from configuration to result; see `trainer.train`."""
    started = time.time()
    try:
        return _run(config, listen, stop, resume, started)
    except Stopped:
        listen(Finished("stopped", None, 0))
        return TrainResult("stopped", None, (), run_dir_of(config), 0, None, time.time() - started)


def _run(config: TrainConfig, listen: Listener, stop: StopCheck, resume: bool, started: float) -> TrainResult:
    warnings = check_settings(config)
    device = resolve_device(config.train.device)
    family = find_family(config.base.checkpoint, config.base.family, FAMILIES)
    check_family(config, family.spec)
    run_dir = run_dir_of(config)
    check_places(config, run_dir, resume and (run_dir / STATE_FILE).is_file())
    with ExitStack() as stack:
        stack.enter_context(_locked(run_dir))
        stack.callback(release_memory, device)
        clear_leftovers(artefact_path(config).parent, config.save.name)
        clear_leftovers(run_dir, "")
        listen(Status(f"found {family.spec.title} in {config.base.checkpoint}"))
        plan = make_plan(config, stop)
        warnings = list(dict.fromkeys([*warnings, *check_length(config, plan.total_steps), *without_effect(plan)]))
        listen(Status(f"loading the model on {device} in {config.train.precision}"))
        model = load_base(family, config.base, device, DTYPES[config.train.precision], config.memory)
        objective = make_objective(config.loss, config.noise, model.schedule)
        model.tokenizer = model.reader(reading_of(config.dataset.captions))
        mark = fingerprint(config, plan.digest(), model.identity, plan.total_steps)
        state = load_state(run_dir, mark) if resume else None
        log = stack.enter_context(closing(RunLog(run_dir, state.step if state else None)))

        def tell(event: Event) -> None:
            log(event)
            listen(event)

        write_text(run_dir / "config.yaml", to_yaml(config))
        if config.save.tag_list != "none":
            write_text(run_dir / f"{config.save.name}-tags.txt", tag_list(count_tags(plan.records, config.dataset), config.save.tag_list))
        method = METHODS[config.method.kind](config.method, config.optimizer)
        blocks = method.report(family, model)
        _announce(plan, model, [*warnings, *(blocks.warnings if blocks else ()), *_resume_notes(run_dir, state, resume)], tell)
        if blocks:
            _show_blocks(blocks, run_dir, config.save.name, tell)
        feed = _fill(plan, family, model, method, tell, stop)
        finished = False
        if not stop():
            stack.callback(method.detach)
            wanted = requests(config.sample, config.dataset.resolution)
            prompts = _release_encoders(family, model, method, feed, wanted)
            keeper = Keeper(plan, family, model, method, feed, prompts, wanted, run_dir, mark, started, tell, stop)
            job = _job(plan, family, model, method, feed, objective, keeper, state, tell, stop)
            finished = _train(job, keeper)
        result = _result(run_dir, log, finished, time.time() - started)
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


def _resume_notes(run_dir: Path, state: State | None, resume: bool) -> list[str]:
    return [f"{run_dir} holds no saved state to resume; starting from the beginning"] if resume and state is None else []


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


def _fill(plan: Plan, family: Family, model: Model, method: Method, tell: Listener, stop: StopCheck) -> Feed:
    tell(Status("encoding pictures and captions"))
    cache = TensorCache(cache_dir_of(plan.config))
    return fill_caches(plan, family, model, cache, caches_text(plan.config, method.trains_text), tell, stop)


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
) -> Job:
    """Method and optimizer, fresh or as they were saved."""
    config = plan.config
    for text in method.attach(family, model, config.train.seed):
        tell(Warned(text))
    if config.train.gradient_checkpointing:
        family.enable_checkpointing(model, config.memory.checkpoint_every)
    groups = method.groups()
    optimizer = build_optimizer(config.optimizer, [{"params": g.parameters, "name": g.name, "lr": g.lr} for g in groups])
    scaler = LossScaler(model.device, model.dtype)
    rates = [group.lr for group in groups]
    averaging = build_averaging(config.optimizer, config.train.ema, optimizer)
    job = Job(plan, family, model, method, feed, objective, optimizer, rates, scaler, averaging, [], tell, stop)
    job.periodic = periodic_work(keeper, job)
    if state is None and (doubt := prediction_warning(family, model, method, feed.first())):
        tell(Warned(doubt))
    if state is not None:
        tell(Status(f"resuming after step {state.step}"))
        method.restore(state.tensors)
        optimizer.load_state_dict(state.optimizer)
        scaler.restore(state.scaler)
        job.step = state.step
        averaging.restore(state.averaging)
        job.done_before = keeper.done_before()
    return job


def _train(job: Job, keeper: Keeper) -> bool:
    """Run the loop; work that ends between two saves is saved too."""
    job.listen(Status(f"training {job.plan.total_steps} steps, {job.plan.epochs} epochs"))
    first = job.step
    finished = False
    try:
        finished = run_loop(job)
    except NonFiniteLoss:
        keeper.save_unsaved(job, first)
        raise
    if not finished:
        keeper.save_unsaved(job, first)
    if job.plan.held_out and job.step > first:
        keeper.curve()  # with the last validation, which comes after the last save
    return finished


def _result(run_dir: Path, log: RunLog, finished: bool, seconds: float) -> TrainResult:
    past = log.history()
    files = tuple(dict.fromkeys(past.files))
    last = past.losses[-FINAL_LOSS_STEPS:]
    return TrainResult(
        status="done" if finished else "stopped",
        artefact=files[-1] if files else None,
        files=files,
        run_dir=run_dir,
        steps=past.steps[-1] if past.steps else 0,
        final_loss=sum(last) / len(last) if last else None,
        seconds=seconds,
        losses=tuple(past.losses),
        validation=tuple(past.validation),
        samples=tuple(dict.fromkeys(past.samples)),
    )
