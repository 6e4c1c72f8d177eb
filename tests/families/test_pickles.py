"""Old checkpoints with objects of a training program inside: their weights are read, and nothing of them is run."""

from __future__ import annotations

import os
import sys
import types

import pytest
import torch

from trainer.errors import ModelFileError
from trainer.families.weights import open_weights

RUN = []


@pytest.fixture
def foreign(monkeypatch):
    """Makes a class that a file remembers as `module.name`; when its real constructor runs, it is noted."""

    def make(module: str, name: str) -> type:
        def construct(self, *_):
            RUN.append(name)

        kind = type(name, (), {"__module__": module, "__init__": construct, "__setstate__": construct})
        parts = module.split(".")
        for length in range(1, len(parts) + 1):
            package = ".".join(parts[:length])
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        monkeypatch.setattr(sys.modules[module], name, kind, raising=False)
        return kind

    return make


class Calls:
    """A pickle that calls `function(*arguments)` when it is read by Python's own reader."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("zipped", [True, False])
def test_a_lightning_checkpoint_gives_its_weights(tmp_path, foreign, zipped):
    """As Stable Diffusion's first files are: a callback class as a key, OmegaConf objects with a state, a numpy number."""
    import numpy

    callback = foreign("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    config = foreign("omegaconf.listconfig", "ListConfig")
    settings = config.__new__(config)
    settings.__dict__.update({"_content": [1, 2], "kind": dict, "made": Calls(foreign("omegaconf.nodes", "AnyNode"), 3)})
    weights = {"a": torch.arange(3.0), "b": torch.ones(2, 2).half()}
    path = tmp_path / "old.ckpt"
    value = {"callbacks": {callback: {"best_model_score": numpy.float64(0.5)}}, "hyper_parameters": settings, "state_dict": weights}
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    del RUN[:]
    before = torch.serialization.get_safe_globals()
    file = open_weights(path)
    assert file.shapes == {"a": (3,), "b": (2, 2)}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in file.read({"a", "b"}))
    assert RUN == [] and set(torch.serialization.get_safe_globals()) == set(before)


@pytest.mark.parametrize("function", [os.system, eval, exec, __import__, getattr, open])
@pytest.mark.parametrize("hidden", [True, False])
def test_a_file_that_would_run_something_is_refused_and_runs_nothing(tmp_path, foreign, function, hidden):
    """Also where it hides among objects that are let through."""
    marker = tmp_path / "executed"
    arguments = {os.system: (f"touch {marker}",), open: (str(marker), "w"), getattr: ("text", "upper")}
    code = f"open({str(marker)!r}, 'w')"
    payload = Calls(function, *(arguments.get(function) or (("os",) if function is __import__ else (code,))))
    around = {foreign("omegaconf.listconfig", "ListConfig"): payload} if hidden else payload
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "callbacks": around}, path)
    with pytest.raises(ModelFileError, match="holds more than weights"):
        dict(open_weights(path).shapes)
    assert not marker.exists()


def test_a_stand_in_gives_nothing_to_call(tmp_path, foreign):
    """A file that takes a function out of an allowed module, and calls it, gets an object that does nothing."""
    called = []
    module = foreign("omegaconf.evil", "Real").__module__
    sys.modules[module].run = lambda *given: called.append(given)
    sys.modules[module].run.__module__, sys.modules[module].run.__qualname__ = module, "run"
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Calls(sys.modules[module].run, "touch")}, path)
    assert open_weights(path).shapes == {"a": (1,)} and called == []


def test_classes_of_other_programs_are_still_refused(tmp_path, foreign):
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": foreign("somebody.tools", "Thing")()}, path)
    with pytest.raises(ModelFileError, match="holds more than weights"):
        dict(open_weights(path).shapes)
