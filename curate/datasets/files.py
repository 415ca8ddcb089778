"""The files of a dataset: dataset.json describes it, index.parquet holds the place of each sample's bytes.

Both are small beside the shards, which stay where they are. This module needs only numpy and pyarrow, so that a
training machine can read a dataset.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from curate.errors import UserError, first_line
from models.files import sync
from stages.shards.contract import Contract, ContractError

KIND = "clipmill dataset"
ABOUT, INDEX, EMPTY = "dataset.json", "index.parquet", "empty_{}.npy"
LATENTS = ("mean", "logvar", "tokens")
NOWHERE = -1  # the offset of a field that a sample does not have
NUMPY = {"float16": "float16", "bfloat16": "uint16", "float32": "float32", "int32": "int32", "uint8": "uint8"}


@dataclass(frozen=True)
class BucketInfo:
    """One bucket: `samples` rows of the index from row `first` on, of latents (Z, T, h, w) or tokens (T, h, w)."""

    name: str
    samples: int
    latent: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class ShardFile:
    """A shard as the dataset expects it."""

    path: str  # relative to the dataset's root
    bytes: int
    hash: str  # xxh3 of 128 bits, hexadecimal


@dataclass(frozen=True)
class Dataset:
    """A dataset as dataset.json describes it. `open_dataset` makes it, `columns` reads the index."""

    folder: Path
    name: str
    root: str  # URI of the catalog, below which the shards lie
    contract: Contract
    fields: dict[str, str]  # field -> stored dtype, by the contract: float16, bfloat16, int32, uint8
    text: dict[str, dict[str, Any]]  # text field -> {"column": of `clips`, "dim": of its vectors}
    max_tokens: int  # of one text; 0 without any
    conditions: tuple[str, ...]
    buckets: dict[str, BucketInfo]
    shards: tuple[ShardFile, ...]
    samples: int
    seconds: float
    weighted: bool
    retired: Mapping[str, Any] | None  # by a purge: see `refuse_retired`; None of one to train on
    about: Mapping[str, Any] = field(repr=False)  # all of dataset.json

    @property
    def identity(self) -> str:
        """Tells this dataset from any other, also one of the same name."""
        return f"{self.name} of {self.about['created']}, {self.samples} samples, contract {self.contract.digest}"

    @property
    def latents(self) -> tuple[str, ...]:
        """Which latents there are: mean and perhaps logvar, or tokens."""
        return tuple(name for name in LATENTS if name in self.fields)

    def columns(self, names: Iterable[str]) -> dict[str, pa.ChunkedArray]:
        """Columns of the index, one row for each sample."""
        names = list(names)
        path = self.folder / INDEX
        try:
            table = parquet.read_table(path, columns=names, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(path, error) from error
        missing = [name for name in names if name not in table.column_names]
        if missing or table.num_rows != self.samples:
            what = f"it has no column {missing[0]!r}" if missing else f"it has {table.num_rows:,} rows"
            raise UserError(f"{path} is not the index of this dataset of {self.samples:,} samples: {what}")
        return {name: table[name] for name in names}

    def index_columns(self) -> list[str]:
        """The names of the columns of the index."""
        try:
            return parquet.read_schema(self.folder / INDEX).names
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(self.folder / INDEX, error) from error

    def empty_text(self, name: str = "text") -> np.ndarray | None:
        """The encoded empty prompt (L, D) of a text field; None for a dataset without text."""
        for path in (self.folder / EMPTY.format(name), self.folder / EMPTY.format("text")):
            if path.exists():
                return np.load(path, allow_pickle=False)
        return None


def open_dataset(folder: str | Path | Dataset) -> Dataset:
    """The dataset in a folder; an open dataset is returned as it is. UserError for a folder that holds none, or one
    that is damaged or of another version.
    """
    if isinstance(folder, Dataset):
        return folder
    folder = Path(folder)
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"no dataset in {folder} (no {ABOUT} there): make one with `clipmill dataset create NAME --catalog URI "
            "--select SQL`"
        ) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(about, dict) or about.get("kind") != KIND:
        raise UserError(f"{path} does not describe a {KIND}")
    try:
        contract = Contract.from_dict(about["contract"])
        if contract.digest != about["digest"]:
            raise UserError(
                f"{path}: its contract was changed, its digest is {contract.digest[:12]}… and not "
                f"{about['digest'][:12]}…: make the dataset again"
            )
        buckets, first = {}, 0
        for name, bucket in about["buckets"].items():
            buckets[name] = BucketInfo(name, bucket["samples"], tuple(bucket["latent"]), first)
            first += bucket["samples"]
        return Dataset(
            folder=folder,
            name=about["name"],
            root=about["root"],
            contract=contract,
            fields=about["fields"],
            text=about["text"],
            max_tokens=(contract.text or {}).get("max_tokens", 0),
            conditions=tuple(about["conditions"]),
            buckets=buckets,
            shards=tuple(ShardFile(s["path"], s["bytes"], s["hash"]) for s in about["shards"]),
            samples=about["samples"],
            seconds=about["seconds"],
            weighted=about["weight"] is not None,
            retired=about.get("retired"),
            about=about,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} lacks {error} or is of another version of clipmill: make the dataset again") from error
    except ContractError as error:
        raise UserError(f"{path}: {error}") from error


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} can't be read ({first_line(error)}): make the dataset again")


def refuse_retired(dataset: Dataset) -> Dataset:
    """The dataset; UserError, naming its successor, for one that a purge has retired."""
    if (retired := dataset.retired) is None:
        return dataset
    lost = f"{retired['purged']:,} of its {dataset.samples:,} samples were purged from the catalog"
    why = lost if retired["purged"] else "its shards were written anew without purged clips, which were none of its own"
    successor = retired["successor"]
    then = f"start a new run on its successor {successor}" if successor else "nothing of it is left"
    raise UserError(f"the dataset {dataset.folder} was retired on {retired['at'][:10]}: {why}; {then}")


def write_dataset(folder: Path, about: Mapping[str, Any], index: pa.Table, empty: Mapping[str, np.ndarray]) -> None:
    """Writes a dataset so that it appears whole or not at all. UserError if its folder is there already."""
    part = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.part"
    try:
        refuse_taken(folder)
        part.mkdir(parents=True)
        parquet.write_table(index, part / INDEX, compression="zstd", write_page_checksum=True)
        for name, values in empty.items():
            np.save(part / EMPTY.format(name), values)
        (part / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        for path in (*part.iterdir(), part):
            sync(path)
        part.rename(folder)
        sync(folder.parent)
    except OSError as error:
        refuse_taken(folder)  # another process may have made it meanwhile
        raise UserError(f"can't write the dataset to {folder} ({error.strerror or error}): nothing is left") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def refuse_taken(folder: Path) -> None:
    """UserError if something is at the place of a new dataset."""
    if folder.exists():
        raise UserError(f"{folder} is there already: datasets are never changed; take another name, or delete it first")
