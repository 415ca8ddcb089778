"""Files of a model hub: from its local cache, else the network, else one line that says what to do."""

from __future__ import annotations

import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Sequence

from stages.base import SettingsError, one_line

PROBE_S = 2.0  # seconds to wait for the hub to answer at all


def hub_file(repository: str, file: str, advice: str) -> str:
    """The local path of a file of 'ORG/REPO', downloaded unless it was before. SettingsError ends in `advice`."""
    if (path := cached(repository, [file])) is not None:
        return path
    _must_reach(repository, advice)
    try:
        import huggingface_hub

        return huggingface_hub.hf_hub_download(repository, file)
    except Exception as error:  # the hub has a dozen exceptions, and requests' and httpx's come through
        raise SettingsError(f"{file} of {repository} can't be had: {one_line(error)[:200]}; {advice}") from error


def cached_or_reachable(repository: str, files: Sequence[str], advice: str) -> None:
    """SettingsError when none of the files is in the cache and the hub does not answer; downloads nothing."""
    if cached(repository, files) is None:
        _must_reach(repository, advice)


def cached(repository: str, files: Sequence[str]) -> str | None:
    """The local path of the first of the files that was downloaded before."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise SettingsError("this needs the package huggingface_hub: pip install 'clipmill[clip]'") from error
    for file in files:
        path = huggingface_hub.try_to_load_from_cache(repository, file)
        if isinstance(path, str):
            return path
    return None


def _must_reach(repository: str, advice: str) -> None:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise SettingsError(f"{repository} is not in the hub's cache and HF_HUB_OFFLINE is set: {advice}")
    if urllib.request.getproxies().get("https"):
        return  # what is behind a proxy only a download can tell
    end = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    host, port = end.hostname or "huggingface.co", end.port or (80 if end.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), timeout=PROBE_S).close()
    except OSError as error:
        raise SettingsError(f"{repository} is on a hub that can't be reached ({host}): {advice}") from error
