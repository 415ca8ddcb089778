"""Local paths and the URIs of object stores, behind a few functions that take either.

Local paths go through the operating system and `deltalake`; everything else through fsspec (listing, small
objects, DuckDB's reads) and through deltalake's own object store client (tables).
"""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path
from typing import Any

from curate.errors import UserError, missing_extra

# scheme -> (package of its fsspec filesystem, the extra of clipmill that installs it)
REMOTE_PACKAGES = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"),
    "abfss": ("adlfs", "azure"),
}


def is_local(uri: str) -> bool:
    """True of a path of this machine: no scheme, or file://."""
    return "://" not in uri or uri.startswith("file://")


def join(uri: str, *parts: str) -> str:
    """The URI of something below `uri`; '/' between all parts whatever the store."""
    return "/".join([uri.rstrip("/") or "/", *(part.strip("/") for part in parts)])


def file_uri(path: str) -> str:
    """A local path as a file:// URI, which is text whatever bytes the path has."""
    return "file://" + urllib.parse.quote(os.fsencode(path))


def local_path(uri: str) -> str:
    """The absolute path of a local URI (file:// or plain, ~ expanded)."""
    if uri.startswith("file://"):
        uri = os.fsdecode(urllib.parse.unquote_to_bytes(uri.removeprefix("file://")))
    path = os.path.abspath(os.path.expanduser(uri))
    return path[1:] if path.startswith("//") else path  # POSIX keeps two leading slashes; nobody means them


def shard_cache() -> Path:
    """The folder of a loader's pieces of remote shards, where its user names no other one."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clipmill" / "shards"


def storage_options(uri: str) -> dict[str, str]:
    """What deltalake's client needs beside the credentials (AWS_ACCESS_KEY_ID, ...) that it reads from the environment.

    A private store (AWS_ENDPOINT_URL) may use plain http and seldom has a region, which the client insists on.
    """
    if not uri.startswith(("s3://", "s3a://")):
        return {}
    options = {"AWS_REGION": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        options["AWS_ENDPOINT_URL"] = endpoint
        if endpoint.startswith("http://"):
            options["AWS_ALLOW_HTTP"] = "true"
    return options


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URI and the path inside it.

    Raises UserError, naming the extra to install, when the store's package is missing, and for a scheme
    that fsspec does not know.
    """
    import fsspec

    if is_local(uri):
        return fsspec.filesystem("file"), local_path(uri)
    scheme = uri.split("://", 1)[0]
    try:
        # A cached listing would hide the files that another process, or deltalake in this one, wrote since.
        return fsspec.core.url_to_fs(uri, use_listings_cache=False)
    except ImportError as error:
        if scheme not in REMOTE_PACKAGES:
            raise UserError(f"{uri}: {error}") from error
        raise missing_extra(*REMOTE_PACKAGES[scheme]) from error
    except ValueError as error:
        raise UserError(f"{uri}: no store is known for {scheme}:// ({error})") from error
