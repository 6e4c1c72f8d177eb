"""What a model was trained to predict: said by the settings, by the file, or found out from a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..diffusion.objective import NoiseSchedule, Prediction
from ..errors import ConfigError
from ..events import Status, Warned
from .weights import WeightFile, read_json

if TYPE_CHECKING:
    from ..config import BaseSection

_NAMES: Mapping[str, Prediction] = {"epsilon": "epsilon", "eps": "epsilon", "v": "v", "v_prediction": "v"}
# The last cross-attention block of Stable Diffusion 2: the 768 models, which predict v, have far wider norms there than the
# 512 models. ComfyUI tells the two apart by the same tensor and the same bound.
_TELLING = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
_SPREAD_OF_V = 0.09


def schedule_of(base: BaseSection, unet: WeightFile, names: Mapping[str, str], guess: bool) -> tuple[NoiseSchedule, Status | Warned | None]:
    """The noise schedule of a model, and what to say about it; nothing where it is the usual noise prediction.

    `names` are the UNet's tensors in the file; `guess` asks a tensor where the file does not say what the model predicts.
    """
    checkpoint = Path(base.checkpoint)
    found, source = _written(checkpoint, unet)
    note: Status | Warned | None = None
    if base.prediction != "auto":
        prediction: Prediction = base.prediction
    elif found:
        prediction = found
        note = Status(f"the model predicts {found} (said by {source})") if found != "epsilon" else None
    else:
        prediction = _guess(unet, names) if guess else "epsilon"
        text = f"the file does not say what the model predicts; its weights look like {prediction}. Set base.prediction to epsilon or v"
        note = Warned(f"{text} if that is wrong, or to silence this") if guess else None
    if base.zero_terminal_snr and prediction == "epsilon":
        raise ConfigError(
            "base.zero_terminal_snr: true needs a model that predicts v, but this one predicts epsilon; "
            "leave it out, or set base.prediction to v if the model does predict v"
        )
    written = prediction == "v" and _written_zero_snr(checkpoint, unet)
    zero = written if base.zero_terminal_snr is None else base.zero_terminal_snr
    return NoiseSchedule.scaled_linear(prediction=prediction, zero_terminal_snr=zero), note


def _scheduler(checkpoint: Path) -> dict:
    """The scheduler's settings of a diffusers folder."""
    path = checkpoint / "scheduler" / "scheduler_config.json"
    return read_json(path) if path.is_file() else {}


def _written(checkpoint: Path, unet: WeightFile) -> tuple[Prediction | None, str]:
    """What the file says of itself, and where: marker tensor, metadata, or a folder's scheduler settings."""
    if "v_pred" in unet.shapes:
        return "v", "its tensor v_pred"
    for value, where in (
        (unet.metadata.get("modelspec.prediction_type"), "its metadata"),
        (_scheduler(checkpoint).get("prediction_type"), "its scheduler settings"),
    ):
        if value is not None and value in _NAMES:
            return _NAMES[value], where
    return None, ""


def _written_zero_snr(checkpoint: Path, unet: WeightFile) -> bool:
    return "ztsnr" in unet.shapes or bool(_scheduler(checkpoint).get("rescale_betas_zero_snr"))


def _guess(unet: WeightFile, names: Mapping[str, str]) -> Prediction:
    name = next((name for name, own in names.items() if own == _TELLING), None)
    tensors = [tensor for _, tensor in unet.read({name})] if name else []
    return "v" if tensors and float(tensors[0].float().std(correction=0)) > _SPREAD_OF_V else "epsilon"
