"""Settings of kohya's sd-scripts and of the kohya_ss window, read as a configuration of this trainer."""

from .convert import Imported, convert
from .read import read_files

__all__ = ["Imported", "convert", "read_files"]
