"""Checks one shard against its rows and its index; reads every byte once, in order."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from stages.shards.contract import Contract, ContractError
from stages.shards.format import (
    EMPTY,
    HEADER,
    JSON,
    ShardError,
    array_place,
    index_path,
    not_finite,
    open_file,
    padded,
    parse_index,
)

PIECE = 4 << 20  # bytes hashed at a time
EXAMPLES = 3  # damaged fields that are named for one shard


@dataclass(frozen=True)
class Expected:
    """What the rows say about a shard."""

    hash: str
    bytes: int
    index_hash: str
    bucket: str
    contract: str  # JSON


@dataclass
class Checked:
    """What was found in a shard. A problem is a line without its subject, the path of the shard."""

    problems: list[str] = field(default_factory=list)
    header: dict[str, Any] = field(default_factory=dict)
    clips: set[str] = field(default_factory=set)


class Hashed:
    """A file that is read in order, with the hash of all that was read."""

    def __init__(self, file: BinaryIO):
        import xxhash

        self.file, self.offset, self.digest = file, 0, xxhash.xxh3_128()

    def take(self, length: int) -> bytes:
        """The next `length` bytes, or fewer at the end."""
        content = self.file.read(length)
        self.digest.update(content)
        self.offset += len(content)
        return content

    def rest(self) -> None:
        """Hashes what is left."""
        while self.take(PIECE):
            pass


def check_shard(path: str, expected: Expected) -> Checked:
    """Checks the two files of a shard, its tar and its index. Never raises for damage."""
    checked = Checked()
    index, found = _read_index(path, expected.index_hash)
    checked.problems += found
    try:
        file = open_file(path)
    except ShardError as error:
        checked.problems.append("is missing" if isinstance(error.__cause__, FileNotFoundError) else str(error))
        return checked
    with file:
        hashed = Hashed(file)
        damages: list[str] = []
        try:
            for name, offset, content in _members(hashed):
                damages += _check_member(checked, index, name, offset, content)
        except ShardError as error:
            damages.append(str(error))
        except OSError as error:  # of the disk or store: it does not say that the shard is damaged
            checked.problems.append(f"can't be read at byte {hashed.offset:,}: {error.strerror or error}")
            return checked
        hashed.rest()
    if hashed.offset != expected.bytes:
        checked.problems.append(f"has {hashed.offset:,} bytes, its rows say {expected.bytes:,}")
    if hashed.digest.hexdigest() != expected.hash:
        checked.problems.append(f"has the hash {hashed.digest.hexdigest()}, its rows say {expected.hash}")
    for clip, name in sorted(index or ()):  # every member has removed its row
        damages.append(f"the field {name} of clip {clip} is in the index, not in the tar")
    checked.problems += damages[:EXAMPLES]
    if len(damages) > EXAMPLES:
        checked.problems.append(f"and {len(damages) - EXAMPLES:,} more of its fields")
    checked.problems += _header_problems(checked.header, expected)
    return checked


def _members(hashed: Hashed) -> Iterator[tuple[str, int, bytes]]:
    """(name, offset, content) of each member of the tar. ShardError for a damaged or missing header."""
    while True:
        place = hashed.offset
        block = hashed.take(tarfile.BLOCKSIZE)
        if block == bytes(tarfile.BLOCKSIZE):
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise ShardError(f"has no tar header at byte {place:,} ({error})") from error
        offset = hashed.offset
        content = hashed.take(info.size)
        hashed.take(padded(info.size) - info.size)
        if len(content) != info.size:
            raise ShardError(f"ends within {info.name}, after {len(content):,} of its {info.size:,} bytes")
        yield info.name, offset, content


def _read_index(path: str, expected: str) -> tuple[dict[tuple[str, str], dict[str, Any]] | None, list[str]]:
    """(rows of the index by clip and field, None if it can't be read; problems)."""
    import xxhash

    place = index_path(path)
    try:
        with open_file(place) as file:
            content = file.read()
    except ShardError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        return None, [f"has no index: {place} is missing" if missing else str(error)]
    if (found := xxhash.xxh3_128_hexdigest(content)) != expected:
        return None, [f"has an index with the hash {found}, its rows say {expected}"]
    try:
        rows = parse_index(content, place).to_pylist()
    except ShardError as error:
        return None, [str(error)]
    return {(row["clip_id"], row["field"]): row for row in rows}, []


def _check_member(
    checked: Checked, index: dict[tuple[str, str], dict[str, Any]] | None, name: str, offset: int, content: bytes
) -> list[str]:
    """The problems of one member; removes its row from `index`."""
    if name == HEADER:
        try:
            found = json.loads(content)
            checked.header = found if isinstance(found, dict) else {}
            return []
        except ValueError as error:
            return [f"has a header that is no JSON ({error})"]
    if name.startswith("__"):
        return [] if name.startswith(EMPTY.split("{}")[0]) else [f"holds {name}, which no shard does"]
    clip, _, rest = name.partition(".")
    field_name = rest.removesuffix(".npy") if rest != JSON else JSON
    about = f"the field {field_name} of clip {clip}"
    checked.clips.add(clip)
    start, dtype = 0, JSON
    shape: list[int] = []
    if field_name != JSON:
        try:
            start, kind, sizes = array_place(content)
        except ShardError as error:
            return [f"{about}: {error}"]
        dtype, shape = kind.name, list(sizes)
    problems = []
    if index is not None:
        row = index.pop((clip, field_name), None)
        if row is None:
            return [f"{about} is in the tar, not in the index"]
        problems = _differences(about, row, offset + start, memoryview(content)[start:], dtype, shape)
    if not problems and field_name != JSON and _not_finite(checked.header, field_name, content[start:], dtype):
        problems.append(f"{about} holds NaN or infinity")
    return problems


def _differences(
    about: str, row: Mapping[str, Any], offset: int, data: memoryview, dtype: str, shape: list[int]
) -> list[str]:
    """Where a member's place, type or bytes are not what the index says."""
    import xxhash

    found = {"offset": offset, "length": len(data), "dtype": dtype, "shape": shape}
    problems = [
        f"{about}: its {name} is {value} in the tar, {row[name]} in the index"
        for name, value in found.items()
        if value != row[name]
    ]
    if (digest := xxhash.xxh3_64_intdigest(data)) != row["xxh3"]:
        problems.append(f"{about}: its bytes have the hash {digest:016x}, the index says {row['xxh3']:016x}")
    return problems


def _not_finite(header: Mapping[str, Any], name: str, data: bytes, dtype: str) -> bool:
    import numpy as np

    contract = header.get("contract")
    bits = name in ("mean", "logvar") and isinstance(contract, dict) and contract.get("dtype") == "bfloat16"
    return not_finite(np.frombuffer(data, dtype), bits)


def _header_problems(header: Mapping[str, Any], expected: Expected) -> list[str]:
    """Where the header contradicts the rows or itself."""
    if not header:
        return [f"has no {HEADER}"]
    try:
        inside, rows = Contract.from_dict(header["contract"]), Contract.from_json(expected.contract)
    except KeyError:
        return ["has a header without a contract"]
    except (ContractError, TypeError) as error:
        return [f"has no contract that can be read, in its header or its rows: {error}"]
    problems = [f"has a header that contradicts its rows: {line}" for line in inside.differences(rows)]
    if header.get("digest") != inside.digest:
        problems.append(f"has a header with the digest {header.get('digest')}, its contract's is {inside.digest}")
    if header.get("bucket") != expected.bucket:
        problems.append(f"has a header of the bucket {header.get('bucket')}, its rows say {expected.bucket}")
    return problems
