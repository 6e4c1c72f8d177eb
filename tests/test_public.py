"""The public API."""

from __future__ import annotations

import trainer


def test_no_module_takes_the_place_of_a_public_function(job):
    """Importing a submodule binds its name in the package; a function of that name could be called only once."""
    reports = [trainer.check(job()).as_dict() for _ in range(2)]
    assert reports[0]["steps"] == reports[1]["steps"]
    assert all(callable(getattr(trainer, name)) for name in trainer.__all__)
