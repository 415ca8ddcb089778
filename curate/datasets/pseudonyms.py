"""Names for what was purged, in the index of a dataset that a purge has retired.

A run's order of samples depends on which sources or clips it holds out, and that on a hash of their ids. The pseudonym
of an id is that hash: it can't be turned back, and which samples a run on the dataset drew can still be computed.
"""

from __future__ import annotations

import hashlib

PURGED = "purged:"  # what a pseudonym begins with; 16 hex digits follow


def pseudonym(name: str) -> str:
    """What stands for the id of a clip or source that was purged."""
    return PURGED + held_out_hash(name)


def held_out_hash(name: str) -> str:
    """16 hex digits, the hash of an id by which it is held out of training or not; a pseudonym has that of its id."""
    if name.startswith(PURGED):
        return name.removeprefix(PURGED)
    return hashlib.blake2b(f"held out/{name}".encode(), digest_size=8).hexdigest()
