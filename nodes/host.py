"""Everything the nodes need of ComfyUI. No other module imports comfy, folder_paths or server."""

from __future__ import annotations

import difflib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.utils
import folder_paths
from server import PromptServer

import nodes as comfyui_nodes

Interrupted = comfy.model_management.InterruptProcessingException
ProgressBar = comfy.utils.ProgressBar
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
OWN_FOLDERS = ("advice", "configs", "grids", "queue", "regularization")  # in the output folder, beside those of the runs
DEPTH = 3  # folders of pictures are looked for so many levels below a root


@dataclass(frozen=True)
class SamplerSettings:
    """What the native KSampler and Empty Latent Image ask for, under their names."""

    width: int
    height: int
    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str


def tokenizer_folder() -> str:
    """ComfyUI's own copy of the CLIP tokenizer."""
    return str(Path(comfy.sd.__file__).parent / "sd1_tokenizer")


def model_kinds() -> list[str]:
    """The registered kinds of model files; an older ComfyUI may lack one."""
    return list(folder_paths.folder_names_and_paths)


def model_files(kind: str) -> list[str]:
    """The names of the files of one kind, as the native loaders list them."""
    return folder_paths.get_filename_list(kind)


def model_path(kind: str, name: str) -> Path:
    """FileNotFoundError lists similar names."""
    path = folder_paths.get_full_path(kind, name) or folder_paths.get_full_path(kind, f"{name}.safetensors")
    if path is None:
        known = {Path(file).stem: file for file in model_files(kind)}
        near = [known[stem] for stem in difflib.get_close_matches(Path(name).stem, known, n=3)]
        raise FileNotFoundError(f"{name!r} is not among the files of {kind}; there is: {', '.join(near) or 'none with a similar name'}")
    return Path(path)


def diffusers_roots() -> list[Path]:
    """The registered folders of models that are folders themselves."""
    return model_roots("diffusers") if "diffusers" in folder_paths.folder_names_and_paths else []


def diffusers_folders() -> dict[str, Path]:
    """diffusers/name of every diffusers folder, as the native loader finds them; the first of a name counts."""
    found: dict[str, Path] = {}
    for root in diffusers_roots():
        for path, _, files in os.walk(root, followlinks=True):
            if "model_index.json" in files:
                found.setdefault(f"diffusers/{Path(path).relative_to(root).as_posix()}", Path(path))
    return dict(sorted(found.items()))


def named_paths(text: str) -> list[Path]:
    """What a widget's text may name: files of any registered kind, and files and folders of pictures."""
    if not text or len(text) > 255 or "\n" in text:
        return []
    found = (folder_paths.get_full_path(kind, text) for kind in model_kinds())
    return [*(Path(path) for path in found if path), *_named_pictures(text)]


def _named_pictures(text: str) -> list[Path]:
    """Below the folder that the end of the text names, as in "cat.png [output]"; else below those of `picture_roots`."""
    name, marked = folder_paths.annotated_filepath(text)
    roots = picture_roots()
    label, _, inside = name.partition("/")
    places = [(root, name) for root in ([Path(marked)] if marked else roots.values())]
    places += [(roots[label], inside)] if label in roots and not marked else []
    paths = [(root, Path(os.path.normpath(root / inside))) for root, inside in places]
    # os.path: unlike Path it takes a long sentence for what it is, the name of nothing
    return [path for root, path in paths if root in path.parents and os.path.exists(path)]  # noqa: PTH110


def lora_folder() -> Path:
    return Path(folder_paths.get_folder_paths("loras")[0])


def output_folder() -> Path:
    """Where runs keep their log, samples and state."""
    return Path(folder_paths.get_output_directory()) / "lora_furnace"


def own_folder(name: str) -> Path:
    """One of `OWN_FOLDERS`."""
    assert name in OWN_FOLDERS, name
    return output_folder() / name


def preset_file() -> Path:
    """The user's own block-weight presets; it need not exist."""
    return Path(folder_paths.get_user_directory()) / "lora_furnace" / "block_presets.txt"


def picture_roots() -> dict[str, Path]:
    """The registered folders whose sub-folders may be trained on."""
    roots = {"input": Path(folder_paths.get_input_directory())}
    if "datasets" in folder_paths.folder_names_and_paths:
        roots["datasets"] = Path(folder_paths.get_folder_paths("datasets")[0])
    return roots


def picture_folders() -> list[str]:
    """root/name of every folder with pictures below the roots, and of the parents of such folders."""
    found: set[str] = set()
    for label, root in picture_roots().items():
        for path, folders, files in os.walk(root):
            inside = Path(path).relative_to(root)
            folders[:] = sorted(name for name in folders if name[0] != ".") if len(inside.parts) < DEPTH else []
            if inside.parts and any(name.lower().endswith(PICTURES) for name in files):
                found |= {f"{label}/{part.as_posix()}" for part in (inside, *inside.parents) if part.parts}
    return sorted(found)


def picture_folder(name: str) -> Path:
    """The folder that `picture_folders` calls `name`; ValueError for one that lies outside its root."""
    label, _, inside = name.partition("/")
    root = picture_roots().get(label)
    if root and inside:
        path = root / inside
        if path.is_dir() and path.resolve().is_relative_to(root.resolve()):
            return path
    roots = " or ".join(str(folder) for folder in picture_roots().values())
    raise ValueError(f"folder: {name!r} is not a folder below {roots}")


def config_roots() -> dict[str, Path]:
    """Folders of configuration files: saved ones, those that runs leave behind, and ComfyUI's input folder."""
    return {"configs": own_folder("configs"), "runs": output_folder(), "input": Path(folder_paths.get_input_directory())}


def config_files() -> list[str]:
    """root/name of every configuration file."""
    patterns = {"configs": ("*.yaml", "*.yml", "*.json"), "runs": ("*/config.yaml",), "input": ("*.yaml", "*.yml")}
    found = {
        f"{label}/{path.relative_to(root).as_posix()}"
        for label, root in config_roots().items()
        for pattern in patterns[label]
        for path in root.glob(pattern)
    }
    return sorted(found)


def config_file(name: str) -> Path:
    """The file that `config_files` calls `name`; ValueError for one that lies outside its root."""
    label, _, inside = name.partition("/")
    root = config_roots().get(label)
    path = root / inside if root and inside else None
    if path is None or root is None or not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"config: {name!r} is not a file below {' or '.join(map(str, config_roots().values()))}")
    return path


def model_roots(kind: str) -> list[Path]:
    """The registered folders of one kind of model."""
    return [Path(folder) for folder in folder_paths.get_folder_paths(kind)]


def interrupted() -> bool:
    return comfy.model_management.processing_interrupted()


def raise_interrupt() -> None:
    """End the prompt as ComfyUI's own Cancel does. The flag is set first, because a progress bar may have cleared it."""
    comfy.model_management.interrupt_current_processing(True)
    comfy.model_management.throw_exception_if_processing_interrupted()


def free_memory() -> None:
    """Unload ComfyUI's models and give back what they held."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def show_text(text: str, node_id: str) -> None:
    """One line on a node, in the browser that queued the prompt."""
    server = PromptServer.instance
    server.send_progress_text(text, node_id, server.client_id)


def samplers() -> list[str]:
    return comfy.samplers.KSampler.SAMPLERS


def schedulers() -> list[str]:
    return comfy.samplers.KSampler.SCHEDULERS


def load_lora(path: Path) -> Any:
    return comfy.utils.load_torch_file(str(path), safe_load=True)


def apply_lora(model: Any, clip: Any, lora: Any, strength: float, strength_clip: float | None = None) -> tuple[Any, Any]:
    """Model and CLIP with the LoRA, as the native Load LoRA does it; `strength_clip` where it differs."""
    strength_clip = strength if strength_clip is None else strength_clip
    if strength == strength_clip == 0:
        return model, clip
    return comfy.sd.load_lora_for_models(model, clip, lora, strength, strength_clip)


def lora_layers(model: Any, clip: Any) -> dict[str, int]:
    """Name, by which LoRA files are matched, and input width of each layer of a model and its text encoder; either may be None."""
    import comfy.lora

    named = []
    if model is not None:
        named.append((model.model, comfy.lora.model_lora_keys_unet))
    if clip is not None:
        named.append((clip.cond_stage_model, comfy.lora.model_lora_keys_clip))
    layers = {}
    for network, names in named:
        shapes = {key: tuple(weight.shape) for key, weight in network.state_dict().items()}
        for name, key in names(network, {}).items():
            shape = shapes.get(key[0] if isinstance(key, tuple) else key, ())  # a tuple is a part of a fused layer
            if len(shape) > 1:
                layers[name] = shape[1]
    return layers


def lora_hook(lora: Any, strength_model: float, strength_clip: float, start: float, stop: float) -> Any:
    """ComfyUI's hook of a LoRA that acts from `start` to `stop`, parts of the sampling in [0, 1]."""
    import comfy.hooks  # since the end of 2024

    hooks = comfy.hooks.create_hook_lora(lora, strength_model, strength_clip)
    frames = comfy.hooks.HookKeyframeGroup()
    for place, strength in ({0.0: 0.0} | {start: 1.0} | ({stop: 0.0} if stop < 1 else {})).items():
        # No step is guaranteed to a frame, or the first one would delay the second.
        frames.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=place, guarantee_steps=0))
    hooks.set_keyframes_on_hooks(hook_kf=frames)
    return hooks


def load_checkpoint(path: Path) -> tuple[Any, Any, Any]:
    """Model, CLIP and VAE, as the native Load Checkpoint loads them."""
    embeddings = folder_paths.get_folder_paths("embeddings")
    return comfy.sd.load_checkpoint_guess_config(str(path), output_vae=True, output_clip=True, embedding_directory=embeddings)[:3]


def encode_text(clip: Any, text: str) -> Any:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def sample(model: Any, positive: Any, negative: Any, settings: SamplerSettings) -> Any:
    """Latents of one picture, as the native KSampler draws them on an empty latent."""
    empty = comfyui_nodes.NODE_CLASS_MAPPINGS["EmptyLatentImage"]().generate(settings.width, settings.height)[0]
    ratios = [empty[key] for key in ("downscale_ratio_spacial",) if key in empty]
    latents = comfy.sample.fix_empty_latent_channels(model, empty["samples"], *ratios)

    return comfy.sample.sample(
        model,
        comfy.sample.prepare_noise(latents, settings.seed),
        settings.steps,
        settings.cfg,
        settings.sampler_name,
        settings.scheduler,
        positive,
        negative,
        latents,
        callback=lambda *_: comfy.model_management.throw_exception_if_processing_interrupted(),
        disable_pbar=True,
        seed=settings.seed,
    )


def decode(vae: Any, latents: Any) -> Any:
    """Pictures (B, H, W, 3), as the native VAE Decode gives them."""
    pictures = vae.decode(latents)
    return pictures.reshape(-1, *pictures.shape[-3:])


def save_preview(picture: Any) -> dict[str, str]:
    """Keep a PIL image in ComfyUI's temp folder; returns the reference by which the browser finds it."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    name = f"lora_furnace_{uuid.uuid4().hex}.png"
    picture.save(folder / name, compress_level=1)
    return {"filename": name, "subfolder": "", "type": "temp"}


def output_reference(path: Path) -> dict[str, str]:
    """The same for a file below ComfyUI's output folder."""
    inside = path.relative_to(folder_paths.get_output_directory())
    return {"filename": inside.name, "subfolder": inside.parent.as_posix(), "type": "output"}
