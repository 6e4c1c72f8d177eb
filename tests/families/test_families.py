"""What every family must do, on a tiny model of each: files, text, predictions, training, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from trainer import train
from trainer.config import BaseSection
from trainer.errors import ConfigError, ModelFileError
from trainer.events import StepDone, Warned
from trainer.families import FAMILIES, find_family
from trainer.families.keys import is_linear_attention, rename, unet_table, vae_table

NAMES = tuple(tiny.TINY)
every_family = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    return {name: tiny.write_base(tmp_path_factory.mktemp(name) / "base", family=name) for name in NAMES}


def openclip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A transformers text encoder as OpenCLIP's own module names and fuses its tensors."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    result = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "logit_scale": torch.tensor(4.6),
    }
    if "text_projection.weight" in state:
        result["text_projection"] = state["text_projection.weight"].T.contiguous()
    for layer in range(tiny.TINY_TEXT["num_hidden_layers"]):
        own, their = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            fused = [state[f"{own}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            result[f"{their}attn.in_proj_{kind}"] = torch.cat(fused)
            result[f"{their}attn.out_proj.{kind}"] = state[f"{own}self_attn.out_proj.{kind}"]
            for number in (1, 2):
                result[f"{their}ln_{number}.{kind}"] = state[f"{own}layer_norm{number}.{kind}"]
            result[f"{their}mlp.c_fc.{kind}"] = state[f"{own}mlp.fc1.{kind}"]
            result[f"{their}mlp.c_proj.{kind}"] = state[f"{own}mlp.fc2.{kind}"]
    return result


def single_file(base: Path, name: str) -> dict[str, torch.Tensor]:
    """The whole model as a single file holds it."""
    state = {part: load_file(next((base / part).glob("*.safetensors"))) for part in tiny.TINY[name]}
    names = rename(state["unet"], unet_table(tiny.TINY[name]["unet"]), to_ldm=True)
    result = {"model.diffusion_model." + names[key]: tensor for key, tensor in state["unet"].items()}
    names = rename(state["vae"], vae_table(tiny.TINY[name]["vae"]), to_ldm=True)
    for key, tensor in state["vae"].items():
        result["first_stage_model." + names[key]] = tensor[:, :, None, None] if is_linear_attention(key) else tensor
    for part in FAMILIES[name].spec.text_parts:
        own = state[part.name]
        stored = openclip(own) if part.openclip else {"text_model." + key.removeprefix("text_model."): own[key] for key in own}
        result |= {part.prefix + key: tensor for key, tensor in stored.items()}
    return {key: tensor.contiguous() for key, tensor in result.items()}


def write_file(folder: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    tiny.write_tokenizer(folder / "tokenizer")
    save_file(tensors, folder / "model.safetensors", metadata)
    return folder / "model.safetensors"


def load(name: str, path: Path, **section):
    return tiny.family_of(name).load(BaseSection(checkpoint=str(path), **section), torch.device("cpu"), torch.float32)


@every_family
def test_a_single_file_is_recognised_and_equals_the_folder(bases, tmp_path, name):
    path = write_file(tmp_path, single_file(bases[name], name))
    families = {other: tiny.family_of(other) for other in NAMES}
    assert [other for other, family in families.items() if find_family(str(path), "auto", families).spec.name == name] == list(NAMES)
    assert [other for other in NAMES if families[other].recognise(_shapes(path))] == [name]
    assert find_family(str(bases[name]), "auto", FAMILIES).spec.name == name
    found, expected = load(name, path), load(name, bases[name])
    assert found.identity == expected.identity and len(found.identity) == 2 + len(found.spec.text_parts)


@pytest.mark.parametrize("name", ["scaled_fp8", "model.diffusion_model.time_embed.0.scale_weight", "first_stage_model.a.comfy_quant"])
def test_a_file_whose_8_bit_weights_have_scales_is_refused(bases, tmp_path, name):
    """Without the scales its weights would be others: 256 instead of 0.1 in a layer of a file made so."""
    path = write_file(tmp_path, single_file(bases["sd15"], "sd15") | {name: torch.ones(1)})
    with pytest.raises(ModelFileError, match=f"is a model in scaled 8-bit form .{name}., which cannot be trained on"):
        find_family(str(path), "auto", FAMILIES)


def _shapes(path: Path):
    from trainer.families.weights import open_weights

    return open_weights(path).shapes


@every_family
def test_text_and_predictions_are_those_of_the_libraries(bases, name):
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    base = bases[name]
    family, model = tiny.load_model(base)
    reference = UNet2DConditionModel.from_pretrained(base / "unet")
    end = model.tokenizer.library.eos_token_id
    ids = model.tokenizer.ids("a cat")
    generator = torch.Generator().manual_seed(1)
    noisy, timesteps = torch.randn(2, 4, 8, 12, generator=generator), torch.tensor([3, 801])
    sizes = torch.tensor([[64, 96, 0, 8, 64, 80], [512, 640, 16, 0, 64, 96]])

    def row(pad: int) -> torch.Tensor:
        begin = model.tokenizer.library.bos_token_id
        return torch.tensor([[begin, *ids, end] + [pad] * (75 - len(ids))])

    with torch.no_grad():
        found = family.encode_text(model, ["a cat", "a cat"])
        if name == "sdxl":
            first = CLIPTextModel.from_pretrained(base / "text_encoder")(row(end), output_hidden_states=True)
            second = CLIPTextModelWithProjection.from_pretrained(base / "text_encoder_2")(row(0), output_hidden_states=True)
            context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
            torch.testing.assert_close(found["pooled"], second.text_embeds.expand(2, -1))
            added = {"text_embeds": second.text_embeds.expand(2, -1), "time_ids": sizes}
        else:
            context = CLIPTextModel.from_pretrained(base / "text_encoder")(row(0 if name == "sd2" else end)).last_hidden_state
            added = None
        expected = reference(noisy, timesteps, context.expand(2, -1, -1), added_cond_kwargs=added).sample
        predicted = family.predict(model, noisy, timesteps, found | {"sizes": sizes})
    torch.testing.assert_close(found["context"], context.expand(2, -1, -1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-5)
    other = family.predict(model, noisy, timesteps, found | {"sizes": sizes.flip(0)})
    assert torch.equal(other, predicted) == (name != "sdxl")


@pytest.mark.parametrize("name", NAMES[1:])
def test_training_and_resuming(bases, pictures, tmp_path, name):
    """It learns, saves what kohya's programs expect, and a stopped run goes on as if it had not stopped."""
    events: list = []

    def job(run: str):
        more = {
            "method": {"train_text_encoder": True, "rank": 2, "alpha": 2},
            "sample": {"prompts": ["a (cat:1.2)"], "size": 64, "steps": 1},
        }
        if name == "sdxl":
            more["optimizer"] = {"lr": 1e-2, "text_encoder_lr": 2e-2, "text_encoder_2_lr": 3e-2}
        save = {"dir": str(tmp_path / "out"), "name": run, "dtype": "fp32", "every_epochs": None}
        return tiny.job(bases[name], pictures, tmp_path, save=save, train={"steps": 3, "precision": "fp32", "device": "cpu"}, **more)

    whole = train(job("whole"), listen=events.append)
    steps = [event for event in events if isinstance(event, StepDone)]
    count = {"seen": 0}

    def seen(event) -> None:
        count["seen"] += isinstance(event, StepDone)

    train(job("parts"), listen=seen, stop=lambda: count["seen"] >= 2)
    parts = train(job("parts"), resume=True)
    assert parts.losses == whole.losses and len(whole.samples) == 1
    assert [event.text for event in events if isinstance(event, Warned) and "learned nothing" in event.text] == []
    tensors = tiny.tensors_of(whole.artefact)
    assert tiny.differing(tensors, tiny.tensors_of(parts.artefact)) == []
    family, model = tiny.load_model(bases[name])
    keys = {target.key for target in family.adapter_targets(model) if target.kind == "plain"}
    assert {key.rpartition(".lora_")[0] for key in tensors if ".lora_up." in key} == keys
    starts = {"sd2": {"lora_te_text", "lora_unet_do"}, "sdxl": {"lora_te1_tex", "lora_te2_tex", "lora_unet_in"}}
    assert starts[name] <= {key[:12] for key in keys}
    if name == "sdxl":
        assert steps[0].lr == {"text_encoder": 2e-2, "text_encoder_2": 3e-2, "unet": 1e-2}


@every_family
def test_one_sample_can_be_learned(bases, pictures, name):
    from trainer.feed import Batch
    from trainer.methods import METHODS
    from trainer.objective import batch_loss, make_objective

    family, model = tiny.load_model(bases[name])
    config = tiny.job(bases[name], pictures, Path("unused"), method={"rank": 8, "alpha": 8})
    method = METHODS[config.method.kind](config.method, config.optimizer)
    method.attach(family, model, 1)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    batch = Batch(("x",), ["a cat"], latents, None, None, (5,), sizes=torch.tensor([[64, 64, 0, 0, 64, 64]]))
    objective = make_objective(config.loss, config.noise, model.schedule)
    optimizer = torch.optim.AdamW([p for group in method.groups() for p in group.parameters], lr=1e-2)
    losses = []
    for _ in range(12):
        method.before_forward()
        loss = batch_loss(family, model, batch, objective).sum()
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] * 0.7


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({}, {"text_encoder": 1e-4, "text_encoder_2": 1e-4, "unet": 1e-4}),
        ({"unet_lr": 3e-4}, {"text_encoder": 1e-4, "text_encoder_2": 1e-4, "unet": 3e-4}),
        ({"text_encoder_lr": 2e-4}, {"text_encoder": 2e-4, "text_encoder_2": 2e-4, "unet": 1e-4}),
        ({"text_encoder_2_lr": 5e-4}, {"text_encoder": 1e-4, "text_encoder_2": 5e-4, "unet": 1e-4}),
        ({"text_encoder_lr": 2e-4, "text_encoder_2_lr": 0.0}, {"text_encoder": 2e-4, "text_encoder_2": 0.0, "unet": 1e-4}),
    ],
)
def test_a_part_without_a_rate_of_its_own_learns_at_the_more_general_one(bases, pictures, rates, expected):
    """The second text encoder at the rate of the first, text encoders and UNet at the common one."""
    from trainer.methods import METHODS

    config = tiny.job(bases["sdxl"], pictures, Path("unused"), optimizer={"lr": 1e-4, **rates})
    method = METHODS[config.method.kind](config.method, config.optimizer)
    method.attach(*tiny.load_model(bases["sdxl"]), 1)
    assert {group.name: group.lr for group in method.groups()} == expected


def test_a_learning_rate_for_a_second_encoder_that_is_not_there_is_refused(bases, pictures, tmp_path):
    with pytest.raises(ConfigError, match=r"optimizer\.text_encoder_2_lr: Stable Diffusion 2 has one text encoder"):
        train(tiny.job(bases["sd2"], pictures, tmp_path, optimizer={"text_encoder_2_lr": 1e-4}))


def test_sdxl_has_no_clip_skip(bases, pictures, tmp_path):
    with pytest.raises(ConfigError, match=r"base\.clip_skip: 2 is too much for Stable Diffusion XL"):
        train(tiny.job(bases["sdxl"], pictures, tmp_path, base={"checkpoint": str(bases["sdxl"]), "clip_skip": 2}))


@pytest.mark.parametrize(
    ("form", "prediction", "zero"),
    [
        ("plain", "epsilon", False),
        ("v_pred", "v", False),
        ("v_pred and ztsnr", "v", True),
        ("ztsnr alone", "epsilon", False),
        ("metadata", "v", False),
    ],
)
def test_the_prediction_is_read_from_a_file(bases, tmp_path, form, prediction, zero):
    tensors = single_file(bases["sdxl"], "sdxl") | {mark: torch.zeros(1) for mark in ("v_pred", "ztsnr") if mark in form}
    path = write_file(tmp_path, tensors, {"modelspec.prediction_type": "v"} if form == "metadata" else None)
    schedule = load("sdxl", path).schedule
    assert (schedule.prediction, schedule.zero_terminal_snr) == (prediction, zero)
    assert load("sdxl", path, prediction="epsilon").schedule.prediction == "epsilon"
    own = load("sdxl", path, prediction="v", zero_terminal_snr=True)
    assert own.schedule.zero_terminal_snr and own.schedule.prediction == "v"
    assert not load("sdxl", path, prediction="v", zero_terminal_snr=False).schedule.zero_terminal_snr
    if prediction == "epsilon":
        with pytest.raises(ConfigError, match=r"base\.zero_terminal_snr: true needs a model that predicts v"):
            load("sdxl", path, zero_terminal_snr=True)


def test_the_prediction_is_read_from_a_folder(bases, tmp_path):
    import shutil

    folder = shutil.copytree(bases["sd2"], tmp_path / "base")
    scheduler = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    model = load("sd2", folder)
    assert model.schedule.prediction == "v" and model.schedule.zero_terminal_snr
    assert "predicts v (said by its scheduler settings)" in model.notes[0].text


@pytest.mark.parametrize(("spread", "prediction"), [(0.03, "epsilon"), (0.2, "v")])
def test_an_unmarked_file_of_stable_diffusion_2_is_judged_by_its_weights(bases, tmp_path, monkeypatch, spread, prediction):
    from trainer.families import prediction as module

    own = "up_blocks.1.attentions.1.transformer_blocks.0.norm1.bias"
    monkeypatch.setattr(module, "_TELLING", own)
    tensors = single_file(bases["sd2"], "sd2")
    name = "model.diffusion_model." + next(iter(rename([own], unet_table(tiny.TINY["sd2"]["unet"]), to_ldm=True).values()))
    tensors[name] = torch.tensor([-spread, spread]).repeat(len(tensors[name]) // 2)
    model = load("sd2", write_file(tmp_path, tensors))
    assert model.schedule.prediction == prediction
    assert f"its weights look like {prediction}" in model.notes[0].text
