"""The one spelling of a source's name: an absolute path, or the URI of a store."""

from __future__ import annotations

import os

from curate.storage import file_uri, is_local, local_path


def canonical(name: str, folder: str) -> str:
    """The one spelling of a source's name: the absolute path, or the URI as it is."""
    if not is_local(name):
        return name
    if name.startswith(("file://", "~", "/")):
        return spelled(local_path(name))
    return spelled(os.path.abspath(os.path.join(local_path(folder), name))) if is_local(folder) else f"{folder}/{name}"


def spelled(path: str) -> str:
    """A local path as text that every table can hold; a name that is not UTF-8 becomes a file:// URI."""
    try:
        path.encode()
        return path
    except UnicodeEncodeError:
        return file_uri(path)


def absolute(inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Inputs as the catalog keeps them: `status` must find them again from any folder."""
    return tuple(local_path(text) if is_local(text) else text for text in inputs)
