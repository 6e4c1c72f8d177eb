"""`tags CONFIG_OR_FOLDER`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .shared import add_settings

HELP = "List the tags of a dataset's captions."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="CONFIG_OR_FOLDER", help="configuration, LoRA that was trained here, or folder of pictures with captions"
    )
    add_settings(parser)
    parser.add_argument(
        "--sort", choices=("frequency", "alphabetical"), default="frequency", help="most frequent first, with counts, or by name"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..config import CaptionSection, DatasetSection, FolderSection
    from ..data.records import scan
    from ..data.tags import count_tags, in_order, tag_list
    from ..errors import ConfigError
    from ..reading import load_config

    if Path(options.source).is_dir():
        if options.set:
            raise ConfigError(
                f"--set {options.set[0]!r}: {options.source} is a folder; settings can be changed in a configuration file only"
            )
        dataset = DatasetSection(folders=(FolderSection(path=options.source),), captions=CaptionSection(missing="empty"))
    else:
        dataset = load_config(options.source, options.set).dataset
    counts = count_tags(scan(dataset).records, dataset)
    print(tag_list(counts, options.sort), end="")
    return {"tags": in_order(counts, options.sort)}
