"""Named vectors and rules, from the text file of this folder and from a user's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError
from ..files import from_home, read_text

_OWN = Path(__file__).with_name("presets.txt")


@dataclass(frozen=True)
class Presets:
    """Names (in capitals) and what they stand for."""

    vectors: dict[str, str] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)

    def vector(self, text: str) -> str:
        """The vector that a name stands for; other texts as they are."""
        return self.vectors.get(text.strip().upper(), text)


def read_presets(*files: Path | str) -> Presets:
    """Our presets and those of further files; a later one of the same name wins. ConfigError names a line that is no preset."""
    presets = Presets()
    for file in (_OWN, *files):
        try:
            text = read_text(from_home(file))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"presets: {file} cannot be read: {error}") from None
        for number, line in enumerate(text.splitlines(), 1):
            _add(presets, line.strip(), f"presets: {file}, line {number}")
    return presets


def _add(presets: Presets, line: str, where: str) -> None:
    if not line or line.startswith("#"):
        return
    name, colon, rest = (part.strip() for part in line.partition(":"))
    if not (name and colon and rest) or rest.count(":") not in (0, 2):
        raise ConfigError(f"{where}: {line!r} is not written as NAME:values or NAME:blocks:elements:ratio")
    (presets.rules if ":" in rest else presets.vectors)[name.upper()] = rest
