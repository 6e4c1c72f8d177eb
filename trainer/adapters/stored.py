"""Adapter files of any trainer as modules: which tensors belong together, how strong their change is, how it is scaled.

Names of tensors: those that ComfyUI's loader reads. ΔW and its Frobenius norm by algorithm:
LoRA (arXiv 2106.09685) up · down; LoHa (arXiv 2108.06098) (w1_a · w1_b) ∘ (w2_a · w2_b); LoKr (arXiv 2309.14859) w1 ⊗ w2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import Tensor

# How a tensor's name ends, and what the tensor is.
_ENDINGS = {
    **{f".lora_{side}.weight": side for side in ("up", "down", "mid")},
    **{f"{start}{side}.weight": side for start in (".lora.", "_lora.", ".lora_linear_layer.") for side in ("up", "down")},
    **{f".lora_{letter}{end}": side for letter, side in (("A", "down"), ("B", "up")) for end in (".weight", ".default.weight", "")},
    **{f".{role}": role for role in (
        "alpha", "dora_scale", "reshape_weight",
        "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
        "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
        "diff", "diff_b", "w_norm", "b_norm",
        "set_weight", "oft_blocks", "rescale", "on_input",
    )},
    **{f".{role}.weight": role for role in ("a1", "a2", "b1", "b2")},
}  # fmt: skip
_SCALED = ("up", "hada_w1_a", "lokr_w1", "lokr_w1_a", "diff", "diff_b", "w_norm", "b_norm")  # ΔW is linear in each of these
_WHOLE = ("set_weight", "oft_blocks", "on_input", "a1", "b1")  # their effect is not linear in any one tensor
_KINDS = {  # what a module with a tensor of this role is; the first that fits
    "up": "LoRA",
    "down": "LoRA",
    "hada_w1_a": "LoHa",
    "lokr_w1": "LoKr",
    "lokr_w1_a": "LoKr",
    "oft_blocks": "OFT",
    "a1": "GLoRA",
    "on_input": "IA3",
    "set_weight": "replaced weight",
    "diff": "full difference",
    "diff_b": "bias",
    "w_norm": "norm",
}
_NEEDED = (  # roles that do nothing without each other; "a|b" is one of the two
    ("up", "down"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    ("lokr_w1|lokr_w1_a", "lokr_w2|lokr_w2_a"),
    ("lokr_w1_a", "lokr_w1_b"),
    ("lokr_w2_a", "lokr_w2_b"),
)
_ROWS = 256  # of a LoHa's ΔW that are in memory at a time


@dataclass(frozen=True)
class StoredModule:
    """The tensors of one layer in a file, by role."""

    name: str
    tensors: Mapping[str, Tensor]
    names: Mapping[str, str]  # role -> full name in the file

    @property
    def whole(self) -> bool:
        """Whether it can only be kept or dropped, because its change cannot be scaled (OFT, GLoRA, IA3 …)."""
        return any(role in self.tensors for role in _WHOLE) or not any(role in self.tensors for role in _SCALED)

    @property
    def decomposed(self) -> bool:
        """Whether it is a DoRA, whose ΔW gives the direction only."""
        return "dora_scale" in self.tensors

    @property
    def kind(self) -> str:
        """What people call it; a LoRA of a convolution larger than 1x1 is a LoCon."""
        name = next((kind for role, kind in _KINDS.items() if role in self.tensors), "unknown")
        down = self.tensors.get("down")
        if name == "LoRA" and ("mid" in self.tensors or (down is not None and prod(down.shape[2:]) > 1)):
            name = "LoCon"
        return f"DoRA over {name}" if self.decomposed else name

    @property
    def incomplete(self) -> bool:
        """Whether tensors are missing without which the others do nothing."""
        alone = set(self.tensors) <= {"alpha", "dora_scale"}
        has = [[any(role in self.tensors for role in one.split("|")) for one in group] for group in _NEEDED]
        return alone or any(any(group) and not all(group) for group in has)

    @property
    def rank(self) -> int | None:
        """The rank that the scale alpha/rank divides by; None where the scale is 1 whatever alpha is."""
        return next((self.tensors[role].shape[0] for role in ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b") if role in self.tensors), None)

    @property
    def alpha(self) -> float | None:
        return float(self.tensors["alpha"]) if "alpha" in self.tensors else None

    def inputs(self) -> int | None:
        """The width of the layer that it joins, for a convolution its input channels; None where it is not known."""
        shapes = {role: tuple(tensor.shape) for role, tensor in self.tensors.items()}
        if "down" in shapes:
            return shapes["down"][1]
        if "hada_w1_b" in shapes:
            return shapes["hada_w1_b"][1]
        if self.incomplete or not ("lokr_w1" in shapes or "lokr_w1_a" in shapes):
            return shapes["diff"][1] if len(shapes.get("diff", ())) > 1 else None
        return prod(shapes[name if name in shapes else f"{name}_b"][1] for name in ("lokr_w1", "lokr_w2"))

    def scaled(self, ratio: float) -> dict[str, Tensor]:
        """The tensors by full name with ΔW · ratio; nothing at 0, and the very same tensors at 1."""
        assert ratio in (0, 1) or not self.whole, self.name
        if ratio == 0:
            return {}
        return {
            self.names[role]: (tensor.float() * ratio).to(tensor.dtype) if ratio != 1 and role in _SCALED else tensor
            for role, tensor in self.tensors.items()
        }

    def norm(self) -> float | None:
        """‖ΔW‖ (Frobenius), exactly and without building ΔW; None where the file alone does not say it."""
        parts = [square for square in (self._low_rank(), *self._plain()) if square is not None]
        return None if self.whole or not parts else sqrt(sum(parts))

    def _plain(self) -> list[float]:
        return [_square(self.tensors[role]) for role in ("diff", "diff_b", "w_norm", "b_norm") if role in self.tensors]

    def _low_rank(self) -> float | None:
        """‖ΔW‖² of the algorithm, with its scale alpha/rank."""
        if self.incomplete:
            return None
        of = {role: tensor.detach().double().cpu() for role, tensor in self.tensors.items()}
        scale = self._scale()
        if "up" in of and "down" in of:
            return scale**2 * _product_square(of["up"], of["down"], of.get("mid"))
        if "hada_w1_a" in of:
            return scale**2 * _hadamard_square(of)
        if "lokr_w1" in of or "lokr_w1_a" in of:
            return scale**2 * _factor_square(of, "lokr_w1") * _factor_square(of, "lokr_w2")
        return None

    def _scale(self) -> float:
        return 1.0 if self.alpha is None or self.rank is None else self.alpha / self.rank

    def size(self) -> int:
        """How many numbers ΔW has; 0 where it is not known."""
        shapes = {role: tuple(tensor.shape) for role, tensor in self.tensors.items()}
        if "up" in shapes and "down" in shapes:
            kernel = shapes["mid"][2:] if "mid" in shapes else shapes["down"][2:]
            return shapes["up"][0] * shapes["down"][1] * prod(kernel)
        if "hada_w1_a" in shapes:
            tucker = "hada_t1" in shapes
            return shapes["hada_w1_a"][1 if tucker else 0] * shapes["hada_w1_b"][1] * prod(shapes["hada_t1"][2:] if tucker else ())
        if "lokr_w1" in shapes or "lokr_w1_a" in shapes:
            return prod(_factor_size(shapes, name) for name in ("lokr_w1", "lokr_w2"))
        return sum(prod(shapes[role]) for role in ("diff", "w_norm") if role in shapes)


def split_modules(tensors: Mapping[str, Tensor]) -> tuple[list[StoredModule], list[str]]:
    """The modules of a file in its order, and the names of tensors that belong to no known kind of adapter."""
    found: dict[str, dict[str, str]] = {}
    unknown = []
    for name in tensors:
        ending = max((ending for ending in _ENDINGS if name.endswith(ending)), key=len, default=None)
        if ending is None:
            unknown.append(name)
        else:
            found.setdefault(name.removesuffix(ending), {})[_ENDINGS[ending]] = name
    modules = [StoredModule(key, {role: tensors[name] for role, name in names.items()}, names) for key, names in found.items()]
    return modules, unknown


def total_norm(norms: Iterable[float]) -> float:
    """The norm of several changes side by side."""
    return sqrt(sum(norm * norm for norm in norms))


def _square(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())


def _gram(tensor: Tensor) -> Tensor:
    """Inner products of the rows (rank, …): (rank, rank)."""
    flat = tensor.flatten(1)
    return flat @ flat.T


def _product_square(up: Tensor, down: Tensor, mid: Tensor | None = None) -> float:
    """‖up · down‖² = Σ (upᵀup) ∘ (down downᵀ), from rank × rank matrices; with Tucker's mid (rank, rank, k, k) once per pixel."""
    left, right = _gram(up.flatten(1).T), _gram(down)
    if mid is None:
        return float((left * right).sum())
    pixels = mid.flatten(2)  # (r, r, k·k)
    return float(torch.einsum("pqx,pa,abx,bq->", pixels, left, pixels, right))


def _factor_square(of: Mapping[str, Tensor], name: str) -> float:
    """‖factor‖² of a LoKr: whole, a · b, or with a Tucker core."""
    if name in of:
        return _square(of[name])
    a, b, core = of[f"{name}_a"], of[f"{name}_b"], of.get(name.replace("_w", "_t"))
    if core is None:
        return _product_square(a, b)
    # The core is (i, j, k, l), b (j, in) and a (i, out): here a is transposed.
    return _product_square(a.T, b, core)


def _factor_size(shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    if name in shapes:
        return prod(shapes[name])
    core = shapes.get(name.replace("_w", "_t"))
    rows = shapes[f"{name}_a"][1 if core else 0]
    return rows * prod(shapes[f"{name}_b"][1:]) * prod(core[2:] if core else ())


def _hadamard_square(of: Mapping[str, Tensor]) -> float:
    """‖(A₁B₁) ∘ (A₂B₂)‖², some rows at a time."""
    total = 0.0
    for pixel in range(prod(of["hada_t1"].shape[2:]) if "hada_t1" in of else 1):
        (a1, b1), (a2, b2) = (_hadamard_factor(of, number, pixel) for number in (1, 2))
        for start in range(0, a1.shape[0], _ROWS):
            rows = slice(start, start + _ROWS)
            total += _square((a1[rows] @ b1) * (a2[rows] @ b2))
    return total


def _hadamard_factor(of: Mapping[str, Tensor], number: int, pixel: int) -> tuple[Tensor, Tensor]:
    """(out, rank) and (rank, in) of one factor; with a Tucker core (i, j, k, l), for one pixel of the kernel."""
    a, b, core = of[f"hada_w{number}_a"], of[f"hada_w{number}_b"], of.get(f"hada_t{number}")
    return (a, b.flatten(1)) if core is None else (a.T @ core.flatten(2)[:, :, pixel], b)
