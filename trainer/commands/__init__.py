"""The commands of the command line. Adding one: a module with `HELP`, `arguments(parser)` and `run(options)`, and a line in `COMMANDS`.

`run` returns what `--json` prints; its key "status" is "stopped" where the user ended it, "failed" where some work failed.
"""

from . import (
    advise,
    bench,
    blocks,
    check,
    config,
    demo,
    dylora_split,
    grid,
    images,
    import_,
    info,
    loss,
    methods,
    presets,
    queue,
    regularize,
    tags,
    train,
)

COMMANDS = {
    "train": train,
    "check": check,
    "config": config,
    "presets": presets,
    "methods": methods,
    "import": import_,
    "regularize": regularize,
    "demo": demo,
    "grid": grid,
    "advise": advise,
    "loss": loss,
    "images": images,
    "tags": tags,
    "dylora-split": dylora_split,
    "info": info,
    "blocks": blocks,
    "queue": queue,
    "bench": bench,
}

__all__ = ["COMMANDS"]
