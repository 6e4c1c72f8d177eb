"""Which folders of pictures a dataset consists of: plain folders, and parents of N_concept folders."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import FolderSection
from ..errors import DatasetError
from ..files import from_home

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
OTHER_PICTURES = (".avif", ".gif", ".heic", ".heif", ".jxl", ".psd", ".tga", ".tif", ".tiff")
MAX_REPEATS = 10000
IGNORED_FOLDERS = ("__MACOSX",)


@dataclass(frozen=True)
class Listing:
    """What lies directly inside one folder, sorted by name; hidden names (`.x`, macOS' `._x`) are left out."""

    folder: Path
    pictures: tuple[Path, ...]
    files: tuple[Path, ...]
    subfolders: tuple[Path, ...]


@dataclass(frozen=True)
class Group:
    """One folder whose own pictures are trained on."""

    listing: Listing
    repeats: int
    class_words: str | None
    regularization: bool = False
    masks: Path | None = None

    @property
    def folder(self) -> Path:
        return self.listing.folder


def list_folder(folder: Path) -> Listing:
    """Read one folder, not its subfolders. A broken link named like a picture is listed, so that it is reported."""
    try:
        # Sorted by name in code-point order: the same on every system, whatever the locale.
        entries = sorted((path for path in folder.iterdir() if path.name[0] != "."), key=lambda path: path.name)
    except OSError as error:
        raise DatasetError(f"dataset folder {folder} cannot be read: {error.strerror or error}") from None
    subfolders = tuple(path for path in entries if path.is_dir() and path.name not in IGNORED_FOLDERS)
    files = [path for path in entries if not path.is_dir()]
    pictures = tuple(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
    others = tuple(path for path in files if path.suffix.lower() not in IMAGE_SUFFIXES)
    return Listing(folder, pictures, others, subfolders)


def find_groups(section: FolderSection) -> tuple[list[Group], list[str]]:
    """The folders of pictures behind one configured path, and warnings; DatasetError says what is there instead."""
    path = from_home(section.path)
    if not path.exists():
        raise DatasetError(f"dataset folder {path} does not exist; {_nearby(path)}")
    if not path.is_dir():
        raise DatasetError(f"dataset folder {path} is a file; give the folder that holds it")
    top = list_folder(path)
    concepts = [(folder, name) for folder in top.subfolders if (name := parse_concept(folder.name))]
    groups, warnings = [], []
    if top.pictures:
        own = parse_concept(path.resolve().name)
        groups.append(_group(top, section, own))
        if own and section.repeats is None and own[0] > 1:
            warnings.append(f"{path}: by the folder's name each picture counts {own[0]} times; `repeats` overrides it")
        if concepts:
            warnings.append(
                f"{path} holds both pictures of its own and N_concept folders; all are used, "
                f"its own {len(top.pictures)} pictures with {groups[0].repeats} repeats"
            )
    for folder, name in concepts:
        listing = list_folder(folder)
        if listing.pictures:
            groups.append(_group(listing, section, name))
            warnings.extend(_ignored(folder, listing.subfolders, "only pictures directly inside count"))
        else:
            warnings.append(f"{folder} holds no pictures ({describe(listing)}); it is left out")
    if not groups:
        raise DatasetError(
            f"dataset folder {path} holds no pictures ({', '.join(_endings(IMAGE_SUFFIXES))}) and no filled "
            f"N_concept folder; found: {describe(top)}. Choose the folder with the pictures, or name its subfolders "
            "like 10_cat"
        )
    concept_folders = {folder for folder, _name in concepts}
    masks = from_home(section.masks).absolute() if section.masks else None
    rest = [folder for folder in top.subfolders if folder not in concept_folders and folder.absolute() != masks]
    why = f"not named N_concept with N from 1 to {MAX_REPEATS}; add them to dataset.folders if they are wanted"
    warnings.extend(_ignored(path, rest, why))
    return groups, warnings


def parse_concept(name: str) -> tuple[int, str] | None:
    """(repeats, class words) of a folder named N_concept, spaces for underscores: "10_sks_cat" is (10, "sks cat")."""
    name = name.encode("utf-8", "replace").decode("utf-8")  # no tokenizer takes what is not UTF-8
    match = re.fullmatch(r"([0-9]{1,9})_(.*)", name)
    if not match or not 1 <= int(match[1]) <= MAX_REPEATS:
        return None
    return int(match[1]), " ".join(match[2].replace("_", " ").split())


def describe(listing: Listing) -> str:
    """What a folder holds, in words: "3 .avif files, 1 .txt file, subfolders a, b"."""
    files = [*listing.pictures, *listing.files]
    counts = Counter(path.suffix.lower() or "(no ending)" for path in files)
    parts = [f"{count} {ending} {'file' if count == 1 else 'files'}" for ending, count in counts.most_common(6)]
    if listing.subfolders:
        parts.append(f"subfolders {first_few([path.name for path in listing.subfolders])}")
    return ", ".join(parts) or "nothing"


def unread_pictures(groups: Iterable[Group]) -> list[str]:
    """One warning per folder with files that are pictures, but of a kind that is not read."""
    warnings = []
    for group in groups:
        names = [path.name for path in group.listing.files if path.suffix.lower() in OTHER_PICTURES]
        if names:
            known = ", ".join(_endings(IMAGE_SUFFIXES))
            unused = f"{len(names)} pictures are not used, convert them to one of {known}"
            warnings.append(f"{group.folder}: {unused}: {first_few(names)}")
    return warnings


class CaptionFiles:
    """Finds the caption files of one folder's pictures: same name, one of the endings in any letter case."""

    def __init__(self, listing: Listing, extensions: Sequence[str]):
        self.extensions = tuple(("" if ending.startswith(".") else ".") + ending.lower() for ending in extensions)
        self.listing = listing
        self.found: dict[tuple[str, str], Path] = {}
        for path in listing.files:
            for stem, ending in self._readings(path):
                self.found[stem, ending] = path

    def of(self, picture: Path) -> list[Path]:
        """The caption files of this picture that exist, in the order of the endings."""
        stem = composed(picture.stem)
        return [self.found[stem, ending] for ending in self.extensions if (stem, ending) in self.found]

    def orphans(self) -> list[Path]:
        """Caption files that belong to no picture."""
        stems = {composed(picture.stem) for picture in self.listing.pictures}
        readings = ((path, self._readings(path)) for path in self.listing.files)
        return [path for path, read in readings if read and not any(stem in stems for stem, _ending in read)]

    def _readings(self, path: Path) -> list[tuple[str, str]]:
        """(stem, ending) for each ending that the name has; "a.wd.txt" has both ".txt" and ".wd.txt"."""
        name = composed(path.name)
        return [(name[: -len(ending)], ending) for ending in self.extensions if name.lower().endswith(ending)]


def first_few(names: Sequence[str], limit: int = 5) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _group(listing: Listing, section: FolderSection, concept: tuple[int, str] | None) -> Group:
    repeats, words = concept or (1, "")
    given = (section.class_words or "").strip()
    return Group(listing, section.repeats or repeats, given or words or None, section.regularization, _masks(listing, section))


def _masks(listing: Listing, section: FolderSection) -> Path | None:
    """The folder of a group's masks: one of the same name inside the folder of masks, or that folder itself."""
    if section.masks is None:
        return None
    folder = from_home(section.masks)
    return inside if (inside := folder / listing.folder.name).is_dir() else folder


def _ignored(folder: Path, subfolders: Sequence[Path], why: str) -> list[str]:
    if not subfolders:
        return []
    return [f"{folder}: subfolders are not used ({why}): {first_few([path.name for path in subfolders])}"]


def _nearby(path: Path) -> str:
    """What there is instead: the nearest existing parent, with similar names first."""
    parent = next((folder for folder in path.parents if folder.is_dir()), None)
    if parent is None:
        return "nor does any folder above it"
    missing = path.relative_to(parent).parts[0]
    names = [folder.name for folder in list_folder(parent).subfolders]
    near = difflib.get_close_matches(missing, names, n=3)
    where = parent if str(parent) != "." else parent.resolve()
    return f"{where} holds {first_few(near or names) or 'no folders'}"


def composed(name: str) -> str:
    """One spelling for accents: macOS archives write "é" as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)


def _endings(suffixes: Iterable[str]) -> list[str]:
    return [suffix.lstrip(".") for suffix in suffixes]
