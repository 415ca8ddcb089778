"""What a loader says when a sample can't be trained on."""

from __future__ import annotations

import logging

from curate.errors import UserError

log = logging.getLogger("clipmill.loader")


class BadSample(UserError):
    """A sample whose bytes are not there, or not those that were written: names clip, shard and reason."""
