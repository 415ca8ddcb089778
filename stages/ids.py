"""Ids: 128-bit hashes, so that the same input gets the same ids on any machine and in any order."""

from __future__ import annotations

import xxhash


def source_id(uri: str) -> str:
    """128-bit hash of the canonical URI, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(uri.encode("utf-8", "surrogateescape"))


def clip_id(source: str, start_pts: int, end_pts: int) -> str:
    """128-bit hash of a source id and a span in PTS, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(f"{source}:{start_pts}:{end_pts}".encode())
