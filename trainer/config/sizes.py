"""Picture sizes in settings."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

Size = tuple[int, int]


def parse_size(value: Any) -> Size:
    """(width, height) from 512, "512", "512x768", "512,768" or [512, 768]."""
    parts = re.split(r"[x×,]", value.lower()) if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    numbers = [int(part) for part in parts if re.fullmatch(r"\s*\d+\s*", str(part))]
    if len(numbers) != len(parts) or len(numbers) not in (1, 2):
        raise ValueError(f"expected a size such as 512 or 512x768, got {value!r}")
    width, height = numbers[0], numbers[-1]
    return width, height


def check_size(value: Size) -> Size:
    """Sizes that latents can have."""
    if any(side < 16 or side > 8192 or side % 8 for side in value):
        raise ValueError(f"sides must be multiples of 8 between 16 and 8192, got {value[0]}x{value[1]}")
    return value


Resolution = Annotated[Size, BeforeValidator(parse_size), AfterValidator(check_size)]
