"""Which training method for what: file sizes and memory of each, counted on networks without weights, and what it is good for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..columns import columns
from ..config import AdapterSection, OptimizerSection

if TYPE_CHECKING:
    from ..families import Family, Model

MIB = 2**20
_MASTER = 4 + 4 + 8  # bytes per trained number: float32 weight, gradient, the two states of AdamW
_COPY = 2 + 2  # copy in bf16 and its gradient
TOKENS = 4  # vectors of a textual inversion whose size is shown


@dataclass(frozen=True)
class Choice:
    """One method, in words. `kind` and `settings` are those of the `method` section."""

    name: str
    kind: str
    use: str
    cost: str
    file: str = "LoRA .safetensors"
    settings: Mapping[str, Any] = field(default_factory=dict)


_STEPS = "10 to 30 pictures, 1,000 to 3,000 steps."
CHOICES = (
    Choice("LoRA", "adapter", "The one to begin with: characters, persons, styles, objects. Every program loads it.", _STEPS),
    Choice(
        "LoCon",
        "adapter",
        "LoRA on the convolutions too: textures and styles, where plain LoRA stays too smooth.",
        "A larger file and somewhat slower steps than LoRA.",
        settings={"conv_rank": 8, "conv_alpha": 4.0},
    ),
    Choice(
        "LoHa",
        "adapter",
        "Styles and several concepts in one file: rank r reaches rank r², so small ranks (4 to 8) do.",
        "Twice LoRA's numbers at equal rank; slower steps, for each builds the whole change of every layer.",
        settings={"adapter": "loha"},
    ),
    Choice(
        "LoKr",
        "adapter",
        "The smallest files; learns a subject fast, carries over to other models less well.",
        "Slower steps for the same reason; a higher learning rate than LoRA's.",
        settings={"adapter": "lokr"},
    ),
    Choice(
        "DyLoRA",
        "adapter",
        "When the right rank is not known: each smaller rank of the file works by itself (`dylora-split`).",
        "As LoRA per step, but each step trains one rank: plan two to three times the steps.",
        settings={"adapter": "dylora"},
    ),
    Choice(
        "DoRA",
        "adapter",
        "Closer to full training at small ranks (4 to 16): fine likeness.",
        "Slower steps and more memory than LoRA; older programs do not load it.",
        settings={"dora": True},
    ),
    Choice(
        "Textual inversion",
        "textual_inversion",
        "Names something that the model can already draw: a face type, a simple object, a quality word. Combines with everything.",
        "About 3,000 steps; learns no new forms or details.",
        file=f"embedding with {TOKENS} vectors",
    ),
    Choice(
        "Hypernetwork",
        "hypernetwork",
        "Styles, before there was LoRA. Choose it only to go on with an old one.",
        "10,000 steps and more; few programs still load it.",
        file=".pt of layer structure 1, 2, 1",
    ),
    Choice(
        "DreamBooth",
        "dreambooth",
        "Changes the whole model: best likeness, many concepts at once, a base for further training.",
        "400 to 1,500 steps with class pictures; a whole checkpoint per result, forgets other things when trained too long.",
        file="whole checkpoint in fp16",
    ),
)


@dataclass(frozen=True)
class Size:
    """Of one method on one model, in MiB. `memory_mib` is what the method itself needs: see `MEMORY_NOTE`."""

    numbers: int  # trained
    file_mib: float
    memory_mib: float


@dataclass(frozen=True)
class MethodRow:
    """A choice with its sizes by model, and whether this trainer has it."""

    choice: Choice
    built: bool
    sizes: dict[str, Size]


MEMORY_NOTE = (
    "memory: frozen weights in bf16, trained ones in float32 with gradients and AdamW's states; not the activations, which grow with "
    "resolution and batch and are much the same for all (`check` counts them for your job)"
)


def method_table(families: Sequence[Family], rank: int = 16) -> list[MethodRow]:
    """Every method with its sizes for each family at a rank; adapters train UNet and text encoders."""
    from . import METHODS

    models = [(family, bare_model(family)) for family in families]
    rows = []
    for choice in CHOICES:
        sizes = {family.spec.title: _size(choice, family, model, rank) for family, model in models}
        rows.append(MethodRow(choice, choice.kind in METHODS, sizes))
    return rows


def table_lines(rows: Sequence[MethodRow], rank: int) -> list[str]:
    """The table and, under it, a paragraph per method."""
    titles = list(rows[0].sizes)
    head = ["method", "here", *(text for title in titles for text in (f"file, {title}", "memory"))]
    table = [head]
    for row in rows:
        cells = [text for title in titles for text in (_mib(row.sizes[title].file_mib), _mib(row.sizes[title].memory_mib))]
        table.append([row.choice.name, "yes" if row.built else "not yet", *cells])
    words = [f"{row.choice.name}: {row.choice.use} {row.choice.cost}{_how(row)}" for row in rows]
    return [*columns(table), f"rank {rank}, UNet and text encoders; {MEMORY_NOTE}", "", *words]


def as_dicts(rows: Sequence[MethodRow]) -> list[dict[str, Any]]:
    return [
        {
            **asdict(row.choice),
            "settings": dict(row.choice.settings),
            "built": row.built,
            "sizes": {t: asdict(s) for t, s in row.sizes.items()},
        }
        for row in rows
    ]


def _how(row: MethodRow) -> str:
    """The settings that choose it, or that they are not there yet."""
    if not row.built:
        return " Not built here yet; the file is its usual form."
    settings = ", ".join(f"{name}: {str(value).lower()}" for name, value in row.choice.settings.items())
    return f" method: {{{settings or 'adapter: lora'}}}"


def _mib(value: float) -> str:
    if value < 1:
        return f"{value * 1024:.0f} KiB"
    return f"{value:.1f} MiB" if value < 1024 else f"{value / 1024:.2f} GiB"


def bare_model(family: Family) -> Model:
    """A family's networks on the meta device, without a file."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from ..families import Model

    spec = family.spec
    with torch.device("meta"):
        encoders = {
            part.name: (CLIPTextModelWithProjection if part.pooled else CLIPTextModel)(CLIPTextConfig(**spec.configs[part.name]))
            for part in spec.text_parts
        }
        unet, vae = UNet2DConditionModel(**spec.configs["unet"]), AutoencoderKL(**spec.configs["vae"])
    none: Any = None
    return Model(spec, unet, encoders, vae, none, none, torch.device("meta"), torch.bfloat16, 1, {}, {})


def _size(choice: Choice, family: Family, model: Model, rank: int) -> Size:
    count = _COUNTS[choice.kind](choice, family, model, rank)
    networks = (model.unet, *model.text_encoders.values())
    frozen, everything = _numbers(*networks), _numbers(*networks, model.vae)
    whole = count == frozen  # the model itself is trained
    file = everything * 2 if whole else count * _FILE_BYTES[choice.kind]
    memory = count * (_MASTER + _COPY) if whole else frozen * 2 + count * (_MASTER + _COPY)
    return Size(count, file / MIB, memory / MIB)


def _numbers(*networks: Any) -> int:
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def _adapter(choice: Choice, family: Family, model: Model, rank: int) -> int:
    from .adapter import AdapterMethod

    values = {"rank": rank, "alpha": rank / 2} | ({"conv_rank": max(1, rank // 2)} if "conv_rank" in choice.settings else {})
    method = AdapterMethod(AdapterSection(**{**dict(choice.settings), **values}), OptimizerSection())
    method.attach(family, model, 0)
    try:
        return sum(parameter.numel() for group in method.groups() for parameter in group.parameters)
    finally:
        method.detach()


def _vectors(_choice: Choice, family: Family, _model: Model, _rank: int) -> int:
    """A vector for each text encoder and token."""
    return TOKENS * sum(family.spec.configs[part.name]["hidden_size"] for part in family.spec.text_parts)


def _hypernetwork(_choice: Choice, family: Family, _model: Model, _rank: int) -> int:
    """Two networks d, 2d, d with biases, for keys and values, at each width of cross-attention and of the text."""
    configs = family.spec.configs["unet"]
    widths = {configs["cross_attention_dim"], *configs["block_out_channels"]}
    return sum(2 * (2 * width * 2 * width + 3 * width) for width in widths)


def _whole(_choice: Choice, _family: Family, model: Model, _rank: int) -> int:
    return _numbers(model.unet, *model.text_encoders.values())


_COUNTS = {"adapter": _adapter, "textual_inversion": _vectors, "hypernetwork": _hypernetwork, "dreambooth": _whole}
_FILE_BYTES = {"adapter": 2, "textual_inversion": 4, "hypernetwork": 4, "dreambooth": 2}
