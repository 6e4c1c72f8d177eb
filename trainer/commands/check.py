"""`check CONFIG`"""

from __future__ import annotations

import argparse
from typing import Any

from .shared import add_config, read_config

HELP = "Report what a training would do, without training."


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from .. import check

    report = check(read_config(options))
    print("\n".join(report.lines()))
    return report.as_dict()
