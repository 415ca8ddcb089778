"""Takes files of a model from the hub: from its local cache, else from the network, else one line that says what to do.

Nothing else in clipmill talks to huggingface_hub.
"""

from __future__ import annotations

import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from stages.base import SettingsError, one_line
from stages.pretrained.packages import require_packages

PROBE_SECONDS = 2.0  # to wait for a connection to the hub
ANSWER_SECONDS = 10.0  # to wait for an answer of the hub


def cached(repository: str, files: Sequence[str]) -> str | None:
    """The local path of the first of these files of 'ORG/REPO' that was downloaded before."""
    hub = _client()
    for file in files:
        path = hub.try_to_load_from_cache(repository, file)
        if isinstance(path, str):
            return path
    return None


def cached_or_reachable(repository: str, files: Sequence[str], advice: str) -> None:
    """SettingsError when none of the files is in the cache and the hub does not answer; downloads nothing."""
    if cached(repository, files) is None:
        _must_reach(repository, advice)


def hub_file(repository: str, file: str, advice: str) -> str:
    """The local path of a file of 'ORG/REPO', downloaded unless it was before. SettingsError ends in `advice`."""
    if (path := cached(repository, [file])) is not None:
        return path
    _must_reach(repository, advice)
    try:
        return _client().hf_hub_download(repository, file)
    except Exception as error:  # the hub has a dozen exceptions, and those of its HTTP client come through
        raise SettingsError(f"{file} of {repository} can't be had: {one_line(error)[:200]}; {advice}") from error


def snapshot(model: str, revision: str | None, patterns: Sequence[str], complete: Callable[[Path], bool]) -> Path:
    """The folder of one revision of a repository, with the files that match `patterns`.

    It is taken from the cache if it is `complete` there, else those files are downloaded. Raises SettingsError, one
    line with the fix, where there is no such model or revision, or the hub can't be reached.
    """
    hub = _client()
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        root = Path(hub.snapshot_download(model, revision=revision, local_files_only=True))
        if complete(root):
            return root
    except Exception:  # nothing of it is in the cache
        pass
    try:
        # model_info first: without a network it fails at once, where a download tries for half a minute.
        commit = hub.HfApi().model_info(model, revision=revision, timeout=ANSWER_SECONDS).sha
        return Path(hub.snapshot_download(model, revision=commit, allow_patterns=list(patterns)))
    except RevisionNotFoundError:
        raise SettingsError(f"model {model!r} has no revision {revision!r} on the hub") from None
    except RepositoryNotFoundError:
        raise SettingsError(
            f"model {model!r}: neither a folder here nor a model on the hub that can be read without `hf auth login`"
        ) from None
    except Exception as error:  # the HTTP client's own classes: no network, a proxy's refusal, offline mode
        raise SettingsError(
            f"model {model!r} is no folder here and the hub can't be asked for it ({one_line(error)[:200]}): "
            "give the path of a folder that holds it (a model of your own must be trained first)"
        ) from error


def _client() -> ModuleType:
    require_packages("huggingface_hub", extra="clip")
    import huggingface_hub

    return huggingface_hub


def _must_reach(repository: str, advice: str) -> None:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise SettingsError(f"{repository} is not in the hub's cache and HF_HUB_OFFLINE is set: {advice}")
    if urllib.request.getproxies().get("https"):
        return  # behind a proxy only a download can tell
    end = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    host, port = end.hostname or "huggingface.co", end.port or (80 if end.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise SettingsError(f"{repository} is on a hub that can't be reached ({host}): {advice}") from error
