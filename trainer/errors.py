"""What can go wrong for a user. Each message names the field or file, shows the value and says the remedy."""

from __future__ import annotations

import traceback


class TrainerError(Exception):
    """Base of every error that is the user's to mend; its text is shown as it is."""

    exit_code = 1


class ConfigError(TrainerError):
    """One or more settings are wrong. `problems` holds one sentence each; all are found before anything is loaded."""

    exit_code = 2

    def __init__(self, problems: str | list[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        heading = "" if len(self.problems) == 1 else f"{len(self.problems)} settings are wrong:\n  "
        super().__init__(heading + "\n  ".join(self.problems))


class DatasetError(TrainerError):
    """The pictures or captions cannot be trained on."""

    exit_code = 2


class ModelFileError(TrainerError):
    """A checkpoint, VAE, tokenizer or LoRA file is missing, damaged or of another model family."""

    exit_code = 2


class ResumeMismatch(TrainerError):
    """The saved state belongs to another job; the differences are listed."""

    exit_code = 2


class RunFolderBusy(TrainerError):
    """Another training is writing to the same run folder."""

    exit_code = 2


class NonFiniteLoss(TrainerError):
    """The loss or a weight became NaN or infinite. Raised before an optimizer step or a save, so what was saved is still good."""


class OutputError(TrainerError):
    """A result could not be written: the disk is full or the folder is not writable."""


class OutOfMemory(TrainerError):
    """The device ran out of memory; the message lists cheaper settings."""


class Stopped(Exception):
    """`stop()` became true before there was anything to save. Never leaves the trainer."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its kind where it has no text."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def forget_frames(error: BaseException | None) -> None:
    """Drop what the functions an error went through still hold, so that an error that is kept does not keep a model."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
