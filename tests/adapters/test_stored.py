"""Stored modules: exact norms against dense ΔW (as ComfyUI's loader builds it), and scaling, for every algorithm and naming."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.adapters.stored import split_modules, total_norm

OUT, IN, RANK, ALPHA = 600, 40, 3, 6.0  # more rows than one piece of a LoHa
CONV = (3, 3)


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def tucker(core: torch.Tensor, b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    return torch.einsum("ijkl,jr,ip->prkl", core, b, a).contiguous()


FILES = {
    "lora": {"lora_up.weight": rand(OUT, RANK), "lora_down.weight": rand(RANK, IN)},
    "locon": {"lora_up.weight": rand(OUT, RANK, 1, 1), "lora_down.weight": rand(RANK, IN, *CONV)},
    "locon tucker": {
        "lora_up.weight": rand(OUT, RANK, 1, 1), "lora_mid.weight": rand(RANK, RANK, *CONV), "lora_down.weight": rand(RANK, IN, 1, 1)
    },
    "loha": {"hada_w1_a": rand(OUT, RANK), "hada_w1_b": rand(RANK, IN), "hada_w2_a": rand(OUT, RANK) * 2, "hada_w2_b": rand(RANK, IN) + 1},
    "loha tucker": {
        "hada_t1": rand(RANK, RANK, *CONV), "hada_w1_a": rand(RANK, OUT), "hada_w1_b": rand(RANK, IN),
        "hada_t2": rand(RANK, RANK, *CONV) + 1, "hada_w2_a": rand(RANK, OUT) - 1, "hada_w2_b": rand(RANK, IN),
    },
    "lokr": {"lokr_w1": rand(4, 5), "lokr_w2_a": rand(OUT // 4, RANK), "lokr_w2_b": rand(RANK, IN // 5)},
    "lokr both": {"lokr_w1_a": rand(4, 2), "lokr_w1_b": rand(2, 5), "lokr_w2_a": rand(OUT // 4, RANK), "lokr_w2_b": rand(RANK, IN // 5)},
    "lokr whole": {"lokr_w1": rand(4, 5), "lokr_w2": rand(OUT // 4, IN // 5, *CONV)},
    "lokr tucker": {
        "lokr_w1": rand(4, 5), "lokr_t2": rand(RANK, RANK, *CONV), "lokr_w2_a": rand(RANK, OUT // 4), "lokr_w2_b": rand(RANK, IN // 5)
    },
    "full": {"diff": rand(OUT, IN)},
}  # fmt: skip


def dense(kind: str, of: dict[str, torch.Tensor]) -> torch.Tensor:
    """ΔW with its scale, in float64."""
    of = {name: tensor.double() for name, tensor in of.items()}
    match kind:
        case "lora" | "locon":
            change = torch.einsum("or,ri...->oi...", of["lora_up.weight"].flatten(1), of["lora_down.weight"])
        case "locon tucker":
            change = torch.einsum(
                "op,pqkl,qi->oikl", of["lora_up.weight"].flatten(1), of["lora_mid.weight"], of["lora_down.weight"].flatten(1)
            )
        case "loha":
            change = (of["hada_w1_a"] @ of["hada_w1_b"]) * (of["hada_w2_a"] @ of["hada_w2_b"])
        case "loha tucker":
            change = math.prod(tucker(of[f"hada_t{n}"], of[f"hada_w{n}_b"], of[f"hada_w{n}_a"]) for n in (1, 2))
        case "lokr":
            change = torch.kron(of["lokr_w1"], of["lokr_w2_a"] @ of["lokr_w2_b"])
        case "lokr both":
            change = torch.kron(of["lokr_w1_a"] @ of["lokr_w1_b"], of["lokr_w2_a"] @ of["lokr_w2_b"])
        case "lokr whole":
            return torch.kron(of["lokr_w1"][..., None, None], of["lokr_w2"])
        case "lokr tucker":
            change = torch.kron(of["lokr_w1"][..., None, None], tucker(of["lokr_t2"], of["lokr_w2_b"], of["lokr_w2_a"]))
        case _:
            return of["diff"]
    return change * ALPHA / RANK


def stored(kind: str, dtype: torch.dtype = torch.float32, **more: torch.Tensor):
    file = {f"key.{name}": tensor.to(dtype) for name, tensor in FILES[kind].items()} | {
        f"key.{name}": tensor for name, tensor in more.items()
    }
    (module,), unknown = split_modules({**file, "key.alpha": torch.tensor(ALPHA)})
    assert unknown == [] and module.name == "key"
    return module


@pytest.mark.parametrize("kind", FILES)
def test_the_norm_is_that_of_the_dense_change(kind):
    module, change = stored(kind), dense(kind, FILES[kind])
    assert module.norm() == pytest.approx(float(change.norm()), rel=1e-9)
    assert module.size() == change.numel()


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("ratio", [0.5, -1.25])
def test_a_ratio_scales_the_dense_change(kind, ratio):
    module = stored(kind)
    scaled = module.scaled(ratio)
    assert scaled.keys() == set(module.names.values())
    found = dense(kind, {name.removeprefix("key."): tensor for name, tensor in scaled.items() if not name.endswith("alpha")})
    torch.testing.assert_close(found, dense(kind, FILES[kind]) * ratio, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", FILES)
def test_one_leaves_the_very_tensors_and_zero_none(kind):
    module = stored(kind, torch.float16)
    assert {name: id(tensor) for name, tensor in module.scaled(1.0).items()} == {
        module.names[role]: id(tensor) for role, tensor in module.tensors.items()
    }
    assert module.scaled(0.0) == {}
    assert {tensor.dtype for name, tensor in module.scaled(0.3).items() if "alpha" not in name} == {torch.float16}


@pytest.mark.parametrize(("up", "down"), [
    ("_lora.up.weight", "_lora.down.weight"), (".lora_B.weight", ".lora_A.weight"), (".lora_B.default.weight", ".lora_A.default.weight"),
    (".lora.up.weight", ".lora.down.weight"), (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"), (".lora_B", ".lora_A"),
])  # fmt: skip
def test_other_names_of_lora(up, down):
    tensors = {f"unet.a.to_q{up}": FILES["lora"]["lora_up.weight"], f"unet.a.to_q{down}": FILES["lora"]["lora_down.weight"]}
    (module,), unknown = split_modules(tensors)
    assert (module.name, unknown) == ("unet.a.to_q", [])
    assert module.norm() == pytest.approx(float(dense("lora", FILES["lora"]).norm()) * RANK / ALPHA, rel=1e-9)  # no alpha is scale 1


def test_the_parts_of_one_layer_add_up():
    """A LoRA with a bias difference: scaled and measured together."""
    bias = rand(OUT)
    module = stored("lora", diff_b=bias)
    assert module.norm() == pytest.approx(total_norm([float(dense("lora", FILES["lora"]).norm()), float(bias.norm())]), rel=1e-6)
    assert torch.equal(module.scaled(0.5)["key.diff_b"], bias * 0.5)


def test_dora_keeps_its_magnitudes():
    magnitude = rand(OUT, 1)
    module = stored("lora", dora_scale=magnitude)
    assert module.decomposed and not module.whole
    assert module.scaled(0.5)["key.dora_scale"] is magnitude
    assert module.scaled(0) == {}


@pytest.mark.parametrize("names", [("oft_blocks",), ("a1.weight", "a2.weight", "b1.weight", "b2.weight"), ("set_weight",)])
def test_kinds_that_cannot_be_scaled(names):
    (module,), _ = split_modules({f"key.{name}": torch.ones(2, 2, 2) for name in names})
    assert module.whole and module.norm() is None
    assert set(module.scaled(1)) == {f"key.{name}" for name in names} and module.scaled(0) == {}


def test_unknown_tensors_are_listed():
    assert split_modules({"emb_params": torch.ones(1)}) == ([], ["emb_params"])
