"""The error and the log of the loader for samples that can't be read."""

from __future__ import annotations

import logging

from curate.errors import UserError

log = logging.getLogger("clipmill.loader")


class BadSample(UserError):
    """A sample whose bytes are missing, or not those that were written: names clip, shard and reason."""
