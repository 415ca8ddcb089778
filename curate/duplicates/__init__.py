"""Duplicates among the clips of a catalog: exact, near and semantic."""

from curate.duplicates.settings import DuplicateSettings
from curate.duplicates.stage import Duplicates

__all__ = ["DuplicateSettings", "Duplicates"]
