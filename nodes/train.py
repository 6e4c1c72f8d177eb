"""The nodes that train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..trainer import TrainConfig, TrainResult, train
from ..trainer.config import AdapterSection, BaseSection, DatasetSection, SaveSection, ValidateSection, from_dict
from ..trainer.errors import ConfigError
from ..trainer.events import Event, Saved, Status
from ..trainer.log import LOG_FILE, history
from . import host, pictures
from .bridge import NodeDisplay, run_beside
from .fingerprint import named
from .links import with_cache
from .outputs import AnyName
from .runs import Run, find_run, lost_files
from .settings import Training
from .widgets import Widgets


class TrainLora:
    """Trains a LoRA and saves it where ComfyUI's loaders find it."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "Trains a LoRA and saves it to models/loras. Cancel keeps what is done; queue the same again to go on from there. "
        "An unchanged job is not trained twice; a changed one under a taken name is saved as name_2."
    )
    SEARCH_ALIASES = ["train lora", "lora training", "fine-tune", "finetune", "kohya", "dreambooth"]
    RETURN_TYPES = (AnyName("COMBO,STRING"), "STRING", "LORA_MODEL", "LOSS_MAP", "IMAGE", "IMAGE")
    RETURN_NAMES = ("lora_name", "lora_names", "LORA_MODEL", "LOSS_MAP", "samples", "loss_curve")
    OUTPUT_IS_LIST = (False, False, False, False, True, False)
    OUTPUT_TOOLTIPS = (
        "Name of the trained LoRA, for the lora_name of Load LoRA.",
        "Names of all saved files in order, one a line, for the strength test.",
        "The LoRA itself, for Load LoRA Model and Save LoRA Weights. Load LoRA Model applies only its image part.",
        "The loss of every step, for Plot Loss Graph.",
        "The last sample of each prompt; the loss curve where no sample prompts were given. All samples are in output/lora_furnace.",
        "The loss over the steps, smoothed, with validation and learning rate.",
    )
    FUNCTION = "execute"
    OUTPUT_NODE = True
    NAME = Widgets(SaveSection, only=("name",), names={"name": "lora_name"})

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sockets = {
            "base": ("LF_BASE", {"tooltip": "What the LoRA is trained on: Base Model or Demo Base."}),
            "dataset": ("LF_DATASET", {"tooltip": "The pictures and captions: Dataset Folder or Demo Base."}),
        }
        settings = {
            "lora": ("LF_METHOD", {"tooltip": "LoRA Settings; their defaults if nothing is connected."}),
            "training": (
                "LF_TRAINING",
                {"tooltip": "Training Settings or a chain of settings nodes; defaults if nothing is connected."},
            ),
            "held_out": (
                "LF_DATASET",
                {"tooltip": "Pictures that are never trained on, to measure the loss on. Only its first folder counts."},
            ),
        }
        return {"required": sockets | cls.NAME.inputs(), "optional": settings, "hidden": {"node_id": "UNIQUE_ID"}}

    @classmethod
    def IS_CHANGED(cls, lora_name: str | None = None, **_: Any) -> str:
        """ComfyUI keeps what a node gave; a LoRA that was deleted since must not come from there."""
        return "\n".join(map(str, named(_lost_files, lora_name)))

    def execute(self, lora_name: str, node_id: str = "", **inputs: Any) -> dict[str, Any]:
        config = job_config(lora_name, **inputs)
        return perform(find_run(config, host.lora_folder(), host.output_folder()), lora_name, node_id)


def perform(run: Run, wished: str, node_id: str) -> dict[str, Any]:
    """Train, or take what was trained before, and show it on the node; `wished` is the name that the run was to have."""
    display = NodeDisplay(node_id)
    result = run.result or _train(run, display)
    display(Status(_summary(run, wished, result)))
    shown = _last_samples(result) or [result.run_dir / "loss.png"]
    return {"ui": {"images": [host.output_reference(path) for path in shown]}, "result": _outputs(result)}


def job_config(
    lora_name: str,
    base: BaseSection,
    dataset: DatasetSection,
    lora: AdapterSection | None = None,
    training: Training | None = None,
    held_out: DatasetSection | None = None,
) -> TrainConfig:
    """The inputs of `TrainLora` as the value that a YAML file gives."""
    name, training = run_name(lora_name), training or {}
    measured = {"folder": held_out.folders[0].path} if held_out else {}
    return from_dict(
        {
            "base": base,
            "dataset": with_cache(dataset),
            "method": lora or AdapterSection(),
            **training,
            "save": training.get("save", SaveSection()).model_copy(update={"name": name}),
            "validate": training.get("validate", ValidateSection()).model_dump() | measured,
        }
    )


def run_name(lora_name: str) -> str:
    """The name, if a LoRA and the folder of its run can have it; else ConfigError."""
    if lora_name.casefold() in host.OWN_FOLDERS:
        raise ConfigError(f"lora_name: {lora_name} is LoRA Furnace's own folder in {host.output_folder()}; choose another name")
    return TrainLora.NAME.build({"lora_name": lora_name}).name


def _lost_files(name: str) -> list[Path]:
    return lost_files(name, host.output_folder())


def _train(run: Run, display: NodeDisplay) -> TrainResult:
    def work(listen: Any, stop: Any) -> TrainResult:
        def tell(event: Event) -> None:
            if isinstance(event, Saved) and event.kind == "state":
                run.remember()
            listen(event)

        result = train(run.config, listen=tell, stop=stop, resume=run.resume)
        if result.status == "done":
            run.remember(result)
        return result

    return run_beside(work, display)


def _summary(run: Run, wished: str, result: TrainResult) -> str:
    name = run.config.save.name
    done = "already trained, nothing to do" if run.result else f"{result.steps} steps in {result.seconds:.0f} s"
    loss = f", loss {result.final_loss:.4f}" if result.final_loss is not None else ""
    renamed = f" ({wished} was taken)" if name != wished else ""
    if run.passed:
        renamed = f" ({run.passed} is an unfinished run with other settings; Resume Training finishes it)"
    return f"{name}.safetensors{renamed}: {done}{loss}"


def _last_samples(result: TrainResult) -> list[Path]:
    """The newest picture of each prompt; sample files are called step<N>_<prompt number>.png."""
    newest = {path.stem.rpartition("_")[2]: path for path in result.samples if path.is_file()}
    return [newest[number] for number in sorted(newest)]


def _outputs(result: TrainResult) -> tuple[Any, ...]:
    folder = host.lora_folder()
    names = [str(path.relative_to(folder)) for path in result.files if path.is_file()]  # users throw numbered ones away
    curve = pictures.open_picture(result.run_dir / "loss.png")
    samples = [pictures.open_picture(path) for path in _last_samples(result)] or [curve]
    losses = history(result.run_dir / LOG_FILE).loss_map()
    return names[-1], "\n".join(names), host.load_lora(result.files[-1]), losses, samples, curve
