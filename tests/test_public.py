"""The public API."""

from __future__ import annotations

from pathlib import Path

import pytest

import trainer


def test_no_module_takes_the_place_of_a_public_function(job):
    """Importing a submodule binds its name in the package; a function of that name could be called only once."""
    reports = [trainer.check(job()).as_dict() for _ in range(2)]
    assert reports[0]["steps"] == reports[1]["steps"]
    assert all(callable(getattr(trainer, name)) for name in trainer.__all__)


@pytest.mark.parametrize("wrong", ["job.yaml", Path("job.yaml"), {"base": {"checkpoint": "x"}}])
def test_what_is_no_configuration_is_told_how_to_become_one(wrong):
    for call in (trainer.train, trainer.check, lambda config: trainer.advise(config, Path("advice"))):
        with pytest.raises(TypeError, match=r"TrainConfig.*trainer\.load_config.*trainer\.config\.from_dict"):
            call(wrong)
