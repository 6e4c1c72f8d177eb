"""What ComfyUI itself says of our names, texts and noise levels. Its own modules are imported in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"

# ComfyUI's own model of a family on the meta device, and its own map of the names that its LoRA loader knows.
KEYS = """
import torch, comfy.lora, comfy.model_base, comfy.supported_models as models
from comfy import sd1_clip, sdxl_clip
from comfy.text_encoders import sd2_clip
kind, clip, config = {
    "sd15": (models.SD15, sd1_clip.SD1ClipModel, dict(num_res_blocks=[2] * 4, channel_mult=[1, 2, 4, 4], context_dim=768,
             transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_output=[1] * 9 + [0] * 3, num_heads=8,
             use_spatial_transformer=True, transformer_depth_middle=1, use_linear_in_transformer=False, adm_in_channels=None)),
    "sd2": (models.SD20, sd2_clip.SD2ClipModel, dict(num_res_blocks=[2] * 4, channel_mult=[1, 2, 4, 4], context_dim=1024,
            transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_output=[1] * 9 + [0] * 3, num_head_channels=64, num_heads=-1,
            use_spatial_transformer=True, transformer_depth_middle=1, use_linear_in_transformer=True, adm_in_channels=None)),
    "sdxl": (models.SDXL, sdxl_clip.SDXLClipModel, dict(num_res_blocks=[2] * 3, channel_mult=[1, 2, 4], context_dim=2048,
             transformer_depth=[0, 0, 2, 2, 10, 10], transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10], num_head_channels=64,
             use_spatial_transformer=True, transformer_depth_middle=10, use_linear_in_transformer=True, adm_in_channels=2816,
             num_heads=-1, num_classes="sequential")),
}[argument]
config = dict(image_size=32, in_channels=4, out_channels=4, model_channels=320, use_temporal_attention=False, legacy=False, **config)
settings = kind(config)
with torch.device("meta"):
    unet = settings.get_model({}, "", device="meta")
    texts = clip(device="meta", dtype=torch.float16)
known = comfy.lora.model_lora_keys_clip(texts, comfy.lora.model_lora_keys_unet(unet, {}))
shapes = {name: tuple(tensor.shape) for part in (unet, texts) for name, tensor in part.state_dict().items()}
result = {key: shapes[name] for key, name in known.items() if isinstance(name, str) and name in shapes and key.startswith("lora_")}
"""

TOKENS = """
from comfy import sd1_clip
tokenizer = sd1_clip.SDTokenizer(tokenizer_path=argument["tokenizer"], pad_with_end=False)
result = [[[tuple(pair) for pair in row] for row in tokenizer.tokenize_with_weights(text)] for text in argument["texts"]]
"""

# ComfyUI's text encoders with tiny configurations and the tensors of a file, and what they make of texts.
TEXT = """
import torch
from safetensors.torch import load_file, save_file
from comfy import sd1_clip, sdxl_clip
from comfy.text_encoders import sd2_clip
plain, g = argument["configs"]
deeper = {**g, "num_hidden_layers": g["num_hidden_layers"] + 1}
options = {"clip_l_model_config": plain, "clip_g_model_config": g, "clip_h_model_config": deeper}
kind = {"sd2": sd2_clip.SD2ClipModel, "sdxl": sdxl_clip.SDXLClipModel}[argument["family"]]
model = kind(device="cpu", dtype=torch.float32, model_options=options)
for part, file in argument["files"].items():
    getattr(model, part).load_sd(load_file(file))
tokenizers = {name: sd1_clip.SDTokenizer(tokenizer_path=argument["tokenizer"], pad_with_end=name == "l") for name in "lgh"}
for number, text in enumerate(argument["texts"]):
    pairs = {name: tokenizer.tokenize_with_weights(text) for name, tokenizer in tokenizers.items()}
    with torch.no_grad():
        context, pooled = model.encode_token_weights(pairs)[:2]
    save_file({"context": context.contiguous(), "pooled": pooled.contiguous()}, argument["out"] + str(number))
result = True
"""

SIGMAS = """
import comfy.model_sampling
result = comfy.model_sampling.ModelSamplingDiscrete(zsnr=True).sigmas.tolist()
"""


def ask(comfyui_path: Path, code: str, argument: object = None):
    """`result` of code that runs inside ComfyUI's own modules on the CPU."""
    head = f"import sys, json; sys.path.insert(0, {str(comfyui_path)!r}); sys.argv = ['main.py', '--cpu']\n"
    head += "argument = json.loads(sys.stdin.read())\n"
    program = head + "import comfy.options; comfy.options.enable_args_parsing()\n" + code + "\nprint('\\n' + json.dumps(result))"
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    done = subprocess.run([python, "-c", program], input=json.dumps(argument), capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_every_saved_name_is_known_to_comfyuis_loader_and_fits_its_weight(comfyui_path, family):
    rows = json.loads((GOLDEN / f"kohya_{family}.json").read_text())
    known = ask(comfyui_path, KEYS, family)
    assert [key for key, _, _ in rows if key not in known] == []
    for key, down, up in rows:
        shape = known[key]
        assert (shape[0], shape[1]) == (up[0], down[1]), key


def test_prompts_are_cut_into_comfyuis_tokens_and_weights(comfyui_path, tmp_path):
    import dataclasses

    from trainer.families import PROMPT
    from trainer.families.text import find_clip_tokenizer

    folder = tiny.write_tokenizer(tmp_path / "tokenizer")
    texts = [
        "",
        "a cat",
        "a (red:1.3) cat",
        "((big) dog) [x]",
        r"\(a\) (b",
        "a) b (c)",
        "(a:b:0.5) (:2) ()",
        "x" * 73 + " (abcd:1.3) end",
        "word " * 60,
    ]
    texts += ["x" * 70 + " (abcdefghijkl:0.8) " + "y" * 80, "(a (b:1.4) c:0.7)", "( )", "(a:1.2", "a:1.2)"]
    tokenizer = dataclasses.replace(find_clip_tokenizer(None, tmp_path, 77), reading=PROMPT)
    expected = ask(comfyui_path, TOKENS, {"tokenizer": str(folder), "texts": texts})
    for text, rows in zip(texts, expected, strict=True):
        chunks = tokenizer.chunks(text)
        found = []
        for chunk in chunks:
            weights = [1.0, *(weight for _, weight in chunk)]
            found.append([[token, weight] for token, weight in zip(tokenizer.row(chunk, 0), weights + [1.0] * 77, strict=False)])
        assert found == [[[token, pytest.approx(weight)] for token, weight in row] for row in rows], text


def test_noise_levels_of_zero_terminal_snr_are_comfyuis(comfyui_path):
    from trainer.diffusion.objective import NoiseSchedule

    own = NoiseSchedule.scaled_linear(prediction="v", zero_terminal_snr=True).sigmas.float()
    assert own.tolist() == ask(comfyui_path, SIGMAS)


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_prompts_are_encoded_as_by_comfyui(comfyui_path, tmp_path, family):
    """Layers, norms, padding, pooled vector, chunks and weights, on tiny encoders."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from trainer.families import FAMILIES, PROMPT, Model
    from trainer.families.text import find_clip_tokenizer

    tokenizer_folder = tiny.write_tokenizer(tmp_path / "tokenizer", size=49408)  # ComfyUI knows the marks by their numbers
    first = {**tiny.TINY_TEXT, "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
    second = {**first, "hidden_size": 48, "projection_dim": 48, "hidden_act": "gelu"}
    spec = FAMILIES[family].spec
    torch.manual_seed(1)
    encoders, files = {}, {}
    names = {"lora_te": "clip_h", "lora_te1": "clip_l", "lora_te2": "clip_g"}
    for part in spec.text_parts:
        kind = CLIPTextModelWithProjection if part.pooled else CLIPTextModel
        encoder = kind(CLIPTextConfig(**(second if part.openclip else first))).eval()
        state = {name.removeprefix("text_model."): tensor for name, tensor in encoder.state_dict().items()}
        file = tmp_path / f"{part.name}.safetensors"
        save_file({name if "projection" in name else f"text_model.{name}": tensor for name, tensor in state.items()}, file)
        encoders[part.name], files[names[part.key]] = encoder, str(file)
    tokenizer = find_clip_tokenizer(None, tmp_path, 77)
    device = torch.device("cpu")
    model = Model(spec, None, encoders, None, tokenizer, None, device, torch.float32, 1, {}, {})  # type: ignore[arg-type]
    texts = ["", "a cat", "a (red:1.4) cat, [dog]", "word " * 30 + "(end:0.5)"]
    argument = {"family": family, "configs": [first, second], "files": files, "tokenizer": str(tokenizer_folder), "texts": texts}
    ask(comfyui_path, TEXT, {**argument, "out": str(tmp_path / "out")})
    for number, text in enumerate(texts):
        expected = load_file(tmp_path / f"out{number}")
        with torch.no_grad():
            found = FAMILIES[family].encode_text(model, [text], PROMPT)
        torch.testing.assert_close(found["context"], expected["context"], rtol=1e-4, atol=1e-4)
        if family == "sdxl":
            torch.testing.assert_close(found["pooled"], expected["pooled"], rtol=1e-4, atol=1e-4)
