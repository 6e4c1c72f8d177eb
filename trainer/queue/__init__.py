"""A folder of jobs that are trained one after another; see `folder` for what lies where."""

from .folder import Claim, JobState, QueueFolder
from .runner import run_queue

__all__ = ["Claim", "JobState", "QueueFolder", "run_queue"]
