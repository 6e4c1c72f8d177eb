"""Settings of kohya's that act together: folders, learning rates, arguments of the network, noise kinds, prompts."""

from __future__ import annotations

from typing import Any

from ..config.io import is_setting
from . import values as to
from .imported import Imported
from .names import FOLDER_ROWS, MODULES, WITHOUT_CONVOLUTIONS
from .prompts import read_prompts
from .read import Options, beside

_OTHER_KINDS = (
    "conv_dim",
    "conv_alpha",
    "unit",
    "factor",
    "lycoris_preset",
    "bypass_mode",
    "constrain",
    "train_norm",
    "train_on_input",
    "dora_wd",
)


def folders(given: dict[str, Any], subsets: list[dict[str, Any]], result: Imported) -> None:
    """dataset.folders, from the described ones or from the parents of N_concept folders."""
    found = [_described(subset, result) for subset in subsets]
    parents = [given.pop("train_data_dir", None), given.pop("reg_data_dir", None)]
    if subsets and any(parents):
        result.different.append("train_data_dir and reg_data_dir: the scripts do not read them beside a dataset description; left out")
    elif any(parents):
        trained, regularization = parents
        found += [{"path": to.text(trained)}] if trained else []
        found += [_supported({"path": to.text(regularization), "regularization": True}, "reg_data_dir", result)] if regularization else []
        result.taken += [name for name, value in zip(("train_data_dir", "reg_data_dir"), parents, strict=True) if value]
    for name in [name for name in FOLDER_ROWS if name in given]:
        value = given.pop(name)
        if subsets or name != "conditioning_data_dir":  # the one that is an argument of the scripts, too
            result.needless.append(f"{name} = {value!r}: the scripts read it for the folders of a dataset description only")
        else:
            _common(name, value, found, result)
    found = [folder for folder in found if folder]
    if found:
        result.put("dataset.folders", found)
        if subsets:
            _without_captions(found, result)
        if to.is_off(given.get("enable_wildcard")):
            result.different.append("captions: of several lines, the scripts read the first; here all are joined")


def _described(subset: dict[str, Any], result: Imported) -> dict[str, Any]:
    folder: dict[str, Any] = {}
    for name, row in FOLDER_ROWS.items():
        if name in subset and (value := _understood(name, subset[name], row.convert, result)) is not None:
            folder[row.target] = value
    if "path" not in folder:
        result.lost.append("a folder without image_dir is not there: pictures and captions are read from folders")
        return {}
    # The scripts read no N_concept name here: without num_repeats it is 1. Ours would read the name.
    if folder.setdefault("repeats", 1) < 1:
        result.needless.append(f"{folder['path']}: num_repeats {folder['repeats']} leaves the folder out; so it is here")
        return {}
    result.taken += [name for name in FOLDER_ROWS if name in subset and name not in result.taken]
    return _supported(folder, to.text(subset["image_dir"]), result)


def _without_captions(found: list[dict[str, Any]], result: Imported) -> None:
    """In a described folder without class_tokens, pictures without a caption get an empty one; here one setting is for all folders."""
    wordless = [folder["path"] for folder in found if "class_words" not in folder]
    if all(folder["path"] in wordless or folder.get("regularization") for folder in found):
        result.put("dataset.captions.missing", "empty")  # regularisation pictures take their class words all the same
    elif wordless:
        result.different.append(
            f"{', '.join(wordless)}: without class_tokens, a picture without a caption gets an empty one there; not here"
        )


def _supported(folder: dict[str, Any], name: str, result: Imported) -> dict[str, Any]:
    """Without what folders cannot say here; a folder whose meaning would change is left out as a whole."""
    if folder.get("regularization") and not is_setting("dataset.folders.0.regularization"):
        result.lost.append(f"{name}: regularisation pictures are not there yet; the folder is left out")
        return {}
    for key in [key for key in folder if not is_setting(f"dataset.folders.0.{key}")]:
        value = folder.pop(key)
        result.lost += [f"{name}: {key} {value!r} is not there yet"] if value else []
    return {key: value for key, value in folder.items() if value is not False}


def _common(name: str, value: Any, found: list[dict[str, Any]], result: Imported) -> None:
    """A folder's setting that a command line gives for all."""
    row = FOLDER_ROWS[name]
    if (converted := _understood(name, value, row.convert, result)) is not None:
        result.taken.append(name)
        for folder in found:
            folder |= _supported({row.target: converted}, name, result)


def _understood(name: str, value: Any, convert: to.Convert, result: Imported) -> Any:
    """The value converted; None where it means nothing, which is said."""
    try:
        return convert(value)
    except (ValueError, TypeError) as error:
        result.unknown.append(f"{name} = {value!r}: {error}")
        return None


def together(given: dict[str, Any], options: Options, result: Imported) -> None:
    """Replace what needs more than one look by settings of the table, or put it in its place."""
    for name in ("max_train_epochs", "max_train_steps"):
        if to.is_off(given.get(name)):
            given.pop(name, None)
    if options.window:
        _window(given, result)
    for name, kind in (("use_8bit_adam", "AdamW8bit"), ("use_lion_optimizer", "Lion")):
        if not to.is_off(given.pop(name, None)):
            given["optimizer_type"] = kind
    if "text_encoder_lr" in given:
        _text_encoder_rates(given, result)
    if "network_args" in given:
        _network_arguments(given, result)
    _convolutions(given)
    if str(given.get("optimizer_type", "")).lower() == "sgdnesterov":
        # The scripts fill these in for this name.
        given["optimizer_args"] = ["momentum=0.9", "nesterov=True", *to.listed(given.get("optimizer_args", []))]
    if given.get("lr_scheduler") == "constant" and not to.is_off(given.get("lr_warmup_steps")):
        result.different.append("lr_warmup_steps: the scripts refuse a warm-up with `constant`; the schedule is constant_with_warmup here")
        given["lr_scheduler"] = "constant_with_warmup"
    if "max_train_epochs" in given and given.pop("max_train_steps", None) is not None:
        result.different.append("max_train_steps: left out; when both are given, epochs win there, but steps would here")
    if not to.is_off(given.get("sample_every_n_epochs")):
        given.pop("sample_every_n_steps", None)  # epochs win there too
    if not to.is_off(given.get("validate_every_n_epochs")):
        given.pop("validate_every_n_steps", None)
    if to.is_off(given.get("enable_bucket", True)):
        for name in ("min_bucket_reso", "max_bucket_reso", "bucket_no_upscale"):
            given.pop(name, None)  # they are for buckets only
    if "network_alpha" in given and to.is_off(given["network_alpha"]):
        given["network_alpha"] = given.get("network_dim", 4)  # 0 means "as the rank"
    if given.get("save_model_as") == "safetensors":
        del given["save_model_as"]
    _prefix_tags(given, result)
    _kept_files(given, result)
    if "base_weights" in given:
        factors = given.pop("base_weights_multiplier", None) or [1.0]
        files = to.listed(given["base_weights"])
        strengths = _understood("base_weights_multiplier", factors, to.numbers, result) or []
        strengths += [1.0] * (len(files) - len(strengths))
        given["base_weights"] = [{"file": file, "strength": strength} for file, strength in zip(files, strengths, strict=False)]
    _prompts(given, options, result)


def _prefix_tags(given: dict[str, Any], result: Imported) -> None:
    """Theirs are put around a caption before its tags are kept and shuffled, ours afterwards."""
    prefix, suffix, mark = (str(given.get(name, "")) for name in ("caption_prefix", "caption_suffix", "keep_tokens_separator"))
    if mark and (mark in prefix or mark in suffix):
        return  # then ours are put around it before, too
    separator = str(given.get("caption_separator", ","))
    try:
        kept = to.whole(given.get("keep_tokens", 0))
    except (ValueError, TypeError):
        return  # the table will say that it is not understood
    # What follows the last separator is the beginning of the caption's first tag.
    here = max(0, kept - prefix.count(separator))
    if here != kept:
        given["keep_tokens"] = here
        result.different.append(f"keep_tokens: {kept} there, with the tags of caption_prefix; {here} here, where it always stays")
    if to.is_off(given.get("shuffle_caption")) and to.is_off(given.get("caption_tag_dropout_rate")):
        return
    loose = [
        *(["caption_prefix"] if kept < sum(tag.strip() != "" for tag in prefix.split(separator)) else []),
        *(["caption_suffix"] if suffix else []),
    ]
    if loose:
        result.different.append(f"{', '.join(loose)}: tags like others there where keep_tokens does not reach; here they stay at the ends")


def _kept_files(given: dict[str, Any], result: Imported) -> None:
    """Theirs keeps the files of so many epochs or steps, ours so many files."""
    for last, every in (("save_last_n_epochs", "save_every_n_epochs"), ("save_last_n_steps", "save_every_n_steps")):
        span, period = given.pop(last, None), given.get(every)
        if not to.is_off(span) and not to.is_off(period):
            numbers = [_understood(name, value, to.whole, result) for name, value in ((last, span), (every, period))]
            if None in numbers:
                continue
            given["save_last_n_files"] = max(1, numbers[0] // numbers[1])
            result.different.append(f"{last}: counts {last.split('_')[-1]} there and files here: {given['save_last_n_files']}")


def _window(given: dict[str, Any], result: Imported) -> None:
    """Meanings that only the window has."""
    _window_length(given)
    rates = ("unet_lr", "text_encoder_lr")
    if all(to.is_off(given.get(name)) for name in rates):
        for name in rates:
            given.pop(name, None)  # then learning_rate trains both
    if to.is_off(given.get("max_timestep")):
        given.pop("max_timestep", None)
    if not to.is_off(given.get("lr_warmup_steps")):
        given.pop("lr_warmup", None)
    elif "lr_warmup" in given:
        given.pop("lr_warmup_steps", None)
        if given.get("lr_scheduler") == "constant":
            given["lr_warmup"] = 0  # the window drops the warm-up of this schedule
    if "stop_text_encoder_training" in given:
        given["stop_text_encoder_training_pct"] = given.pop("stop_text_encoder_training")
    kind = to.text(given.pop("noise_offset_type", "")).lower()
    for other, names in (
        ("multires", ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale")),
        ("original", ("multires_noise_iterations", "multires_noise_discount")),
    ):
        if kind == other:
            dropped = [name for name in names if not to.is_off(given.pop(name, None))]
            if dropped:
                result.different.append(f"{', '.join(dropped)}: not in use, because noise_offset_type is {other.capitalize()}")
    if to.text(given.get("lora_type", "")).lower() == "standard":
        # The window saves the settings of every kind, whichever is chosen.
        for name in _OTHER_KINDS:
            given.pop(name, None)


def _window_length(given: dict[str, Any]) -> None:
    """Steps override `epoch`, and are overridden by max_train_epochs; without cycles there is one for each `epoch`."""
    if "epoch" not in given:
        return
    if given.get("lr_scheduler") == "cosine_with_restarts":
        given.setdefault("lr_scheduler_num_cycles", given["epoch"])
    if "max_train_epochs" not in given and "max_train_steps" not in given:
        given["max_train_epochs"] = given.pop("epoch")


def _text_encoder_rates(given: dict[str, Any], result: Imported) -> None:
    rates = _understood("text_encoder_lr", given.pop("text_encoder_lr"), to.numbers, result)
    if not rates:
        return
    given["text_encoder_lr"] = rates[0]
    if len(set(rates)) > 1:
        given["text_encoder_lr, second"] = rates[1]


def _network_arguments(given: dict[str, Any], result: Imported) -> None:
    """Arguments of the network become settings like others."""
    arguments = _understood("network_args", given.pop("network_args"), to.arguments, result) or {}
    given |= {name.lower(): value for name, value in arguments.items() if to.is_set(value)}
    module = to.text(given.get("network_module", ""))
    if "algo" in given:
        given["network_module"] = f"{module} {given.pop('algo')}"


def _convolutions(given: dict[str, Any]) -> None:
    """The scripts train larger convolutions where they are told to, LyCORIS always, but for some presets."""
    module = to.text(given.get("network_module", given.get("lora_type", ""))).lower()
    if not module.startswith("lycoris"):
        if not to.is_off(given.get("conv_dim")):
            given.setdefault("conv_alpha", 1)
    elif given.get("preset", given.get("lycoris_preset")) in WITHOUT_CONVOLUTIONS:
        given.pop("conv_dim", None)
        given.pop("conv_alpha", None)
    elif module in MODULES:
        for name, general, default in (("conv_dim", "network_dim", 4), ("conv_alpha", "network_alpha", 1)):
            if to.is_off(given.get(name)):
                given[name] = given.get(general, default)


def _prompts(given: dict[str, Any], options: Options, result: Imported) -> None:
    source = given.pop("sample_prompts", None)
    if source is None:
        for name in ("sample_sampler", "sample_every_n_epochs", "sample_every_n_steps", "sample_at_first"):
            given.pop(name, None)  # without prompts nothing is drawn
        return
    path = beside(to.text(source), options.folder)
    if path is None and not options.window:
        result.lost.append(f"sample_prompts = {source!r} was not found; put the prompts into sample.prompts")
        return
    try:
        prompts, notes = read_prompts(path if path else str(source))
    except (OSError, ValueError) as error:
        result.lost.append(f"sample_prompts = {source!r} cannot be read: {error}")
        return
    if prompts:
        result.put("sample.prompts", prompts)
        # The scripts' own: 30 steps, 512 pixels, guidance 7.5.
        for name, value in (("steps", 30), ("size", [512, 512]), ("cfg", 7.5)):
            result.put(f"sample.{name}", value)
        result.taken.append("sample_prompts")
    result.lost += notes


def finish(result: Imported) -> None:
    """A learning rate of 0, or an end before the start, means that the scripts do not train the part."""
    if (result.get("method.stop_text_encoder") or 0) < 0:
        result.remove("method.stop_text_encoder")
        result.put("method.train_text_encoder", False)
    for rate, switch in (("optimizer.text_encoder_lr", "method.train_text_encoder"), ("optimizer.unet_lr", "method.train_unet")):
        if result.get(rate) == 0:
            result.remove(rate)
            result.put(switch, False)
            result.different.append(f"{rate}: 0 leaves the part out there; here that is {switch}: false")
    if result.get("method.train_text_encoder") is False and result.remove("optimizer.text_encoder_lr") is not None:
        result.different.append("text_encoder_lr: without effect, because the text encoder is not trained; left out")
