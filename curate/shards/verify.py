"""`clipmill verify` for shards: compares every byte of every shard with its rows, index and contract.

Also compares the VAE of each contract with the files at its path now, and decodes sampled clips again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from curate.catalog.catalog import Catalog
from curate.catalog.lease import live_runs
from curate.progress_bar import ProgressBar
from curate.shards.changed import find_changed
from curate.shards.check import Checked, Expected, check_shard
from curate.shards.decode_again import TOLERANCE, RecordedPsnr, decode_again
from curate.shards.inventory import (
    FOLDER,
    ShardRows,
    count_shards,
    orphans,
    shard_rows_sql,
    shards_of,
    tables_with_shards,
)
from curate.storage import join
from stages.base import SettingsError, one_line
from stages.latent_coders.describe import describe_coder
from stages.shards.contract import Contract, ContractError
from stages.windows.window import PREPROCESSING_VERSION

if TYPE_CHECKING:
    import duckdb

    from stages.settings import Dtype

THREADS = 4  # shards read at a time: stores take long to answer, and hashing releases Python's lock
DECODED = 64  # clips that are decoded again at most, which takes seconds each on a CPU
EXAMPLES = 3  # clips or shards that one line names


@dataclass
class Findings:
    """Lines: mismatches, and notes on what is no mismatch."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Makers:
    """What made which shards, so that a wrong maker is one line however many shards it made."""

    vaes: dict[tuple[str, str], tuple[Contract, list[str]]] = field(default_factory=dict)  # by path and digest
    preprocessing: dict[int, list[str]] = field(default_factory=dict)


def shard_problems(catalog: Catalog, sql: duckdb.DuckDBPyConnection, redecode: int = 1) -> Findings:
    """Checks every shard that a row of any table names. `redecode` is how many clips of a shard, of those whose PSNR
    was recorded, are decoded again.
    """
    findings, makers = Findings(), Makers()
    samples: list[RecordedPsnr] = []
    busy, tables = live_runs(catalog.uri), tables_with_shards(sql)
    with ProgressBar("verify", sum(count_shards(sql, table) for table in tables), "shards") as progress:
        for table in tables:
            findings.problems += list(_row_problems(sql, table))
            if (changed := find_changed(sql, table)) is not None:
                findings.problems.append(changed.line(catalog))
            unnamed: dict[str, list[ShardRows]] = {}  # clips that a tar holds and its rows don't name
            for shard, checked in _checked(catalog, shards_of(sql, table)):
                name = f"{table}: the shard {shard.path}"
                findings.problems += [f"{name} {line}" for line in checked.problems]
                findings.problems += list(_clip_problems(name, shard, checked))
                for clip in checked.clips.difference(shard.clips):
                    unnamed.setdefault(clip, []).append(shard)
                samples += _note_maker(catalog, shard, checked, makers, redecode)
                progress.update(progress.done + 1)
            _unnamed_clips(sql, table, unnamed, findings)
            if busy:
                findings.notes.append(f"{table}: files that no row names were not looked for, since a run is at work")
            else:
                findings.notes += _orphan_notes(catalog, table)
    lost = sorted(_folders(catalog) - set(tables))
    findings.notes += [f"shards/{name}/ holds files, but there is no table {name!r} that names shards" for name in lost]
    same = _maker_problems(makers, findings)
    _decode_problems(sql, samples, same, findings)
    return findings


def _orphan_notes(catalog: Catalog, table: str) -> Iterator[str]:
    left, kept = orphans(catalog, table)
    for found, what in ((left, "the next run of its recipe deletes them"), (kept, "datasets keep them")):
        if found:
            yield (
                f"{table}: {len(found):,} files under shards/{table}/ ({sum(one.bytes for one in found):,} bytes) that "
                f"no row names, such as {found[0].path}; {what}"
            )


def _folders(catalog: Catalog) -> set[str]:
    """The folders under shards/, one for each table that ever named some."""
    try:
        return {path.rstrip("/").rsplit("/", 1)[1] for path in catalog.fs.ls(join(catalog.path, FOLDER), detail=False)}
    except FileNotFoundError:
        return set()


def _checked(catalog: Catalog, shards: Iterable[ShardRows]) -> Iterator[tuple[ShardRows, Checked]]:
    """Each shard with what was found in it; THREADS are read at a time."""

    def check(shard: ShardRows) -> Checked:
        for values in (shard.hashes, shard.sizes, shard.index_hashes, shard.buckets, shard.contracts):
            if len(values) != 1 or values[0] is None:
                said = " and ".join(map(str, values))[:200]
                return Checked([f"is described by rows that contradict each other: {said}"])
        (digest,), (size,), (index,) = shard.hashes, shard.sizes, shard.index_hashes
        expected = Expected(digest, size, index, shard.buckets[0], shard.contracts[0])
        return check_shard(join(catalog.uri, shard.path), expected)

    with ThreadPoolExecutor(THREADS) as threads:
        waiting = []
        for shard in shards:
            waiting.append((shard, threads.submit(check, shard)))
            if len(waiting) > 2 * THREADS:
                first, answer = waiting.pop(0)
                yield first, answer.result()
        for shard, answer in waiting:
            yield shard, answer.result()


def _row_problems(sql: duckdb.DuckDBPyConnection, table: str) -> Iterator[str]:
    name = shard_rows_sql(sql, table)
    without = sql.execute(f"SELECT clip_id FROM {name} WHERE status = 'done' AND shard IS NULL ORDER BY ALL").fetchall()
    if without:
        yield f"{table}: a row is done without a shard: {_some([clip for (clip,) in without])}"
    for clip, shards in sql.execute(
        f"SELECT clip_id, list(DISTINCT shard ORDER BY shard) AS shards FROM {name} WHERE shard IS NOT NULL "
        "GROUP BY clip_id HAVING len(shards) > 1 ORDER BY ALL"
    ).fetchall():
        yield f"{table}: the clip {clip} is in two shards, as its rows say: {' and '.join(shards)}"


def _clip_problems(name: str, shard: ShardRows, checked: Checked) -> Iterator[str]:
    """Where rows differ from the clips that the tar holds, or from the PSNR in its header."""
    if not checked.header:
        return  # it is missing or damaged, which is a problem of its own
    lost = sorted(set(shard.clips) - checked.clips)
    if lost:
        yield f"{name} does not hold what rows say it does: {_some(lost)}"
    recorded = checked.header.get("decode_psnr") or {}
    for clip, value in shard.psnr.items():
        if clip not in recorded or abs(recorded[clip] - value) > 1e-6:
            yield f"{name} has a decode PSNR of {recorded.get(clip)} for clip {clip}, its row says {value}"


def _unnamed_clips(
    sql: duckdb.DuckDBPyConnection, table: str, unnamed: dict[str, list[ShardRows]], findings: Findings
) -> None:
    """Clips in a tar that no row of it names. That is a note if the clip or its source has changed since, or a later
    row superseded that one; else the row is lost, or the clip is in two shards.
    """
    rows = sql.execute(
        f"SELECT clip_id, t.shard, t.pass, c.clip_id, s.committed_at FROM (SELECT unnest(?) AS clip_id) "
        f"LEFT JOIN {shard_rows_sql(sql, table)} AS t USING (clip_id) LEFT JOIN raw.clips AS c USING (clip_id) "
        "LEFT JOIN raw.sources AS s ON s.source_id = c.source_id ORDER BY clip_id",
        [sorted(unnamed)],
    ).fetchall()
    stale: dict[str, list[str]] = {}
    for clip, elsewhere, made, there, source_made in rows:
        for shard in unnamed[clip]:
            about = f"{table}: the shard {shard.path} holds the clip {clip}"
            gone = there is None or (source_made is not None and source_made > shard.committed_at)
            if (made is not None and made > shard.pass_number) or (made is None and gone):
                stale.setdefault(shard.path, []).append(clip)
            elif made is None:
                findings.problems.append(f"{about}, which no row names")
            else:
                named = f"the shard {elsewhere}" if elsewhere else "no shard"
                findings.problems.append(f"{about}, whose row names {named}")
    for path, clips in stale.items():
        findings.notes.append(f"{table}: the shard {path} still holds what was made again or is gone: {_some(clips)}")


def _note_maker(
    catalog: Catalog, shard: ShardRows, checked: Checked, makers: Makers, redecode: int
) -> list[RecordedPsnr]:
    """Adds the VAE in a shard's header to `makers`; returns the clips that are to be decoded again."""
    header = checked.header
    try:
        contract = Contract.from_dict(header["contract"])
    except (KeyError, TypeError, ContractError):
        return []  # which is a problem already
    makers.preprocessing.setdefault(contract.preprocessing, []).append(shard.path)
    vae = str(header.get("vae_path") or "")
    makers.vaes.setdefault((vae, contract.digest), (contract, []))[1].append(shard.path)
    recorded = sorted((clip, value) for clip, value in (header.get("decode_psnr") or {}).items() if clip in shard.clips)
    place, dtype = join(catalog.uri, shard.path), cast("Dtype", header.get("vae_dtype") or "float32")
    return [
        RecordedPsnr(shard.path, place, clip, value, header["bucket"], contract, vae, dtype)
        for clip, value in recorded[:redecode]
    ]


def _maker_problems(makers: Makers, findings: Findings) -> set[tuple[str, str]]:
    """Compares VAEs and preprocessing with what they are now; returns the VAEs (path and digest of their contract) that
    have not changed.
    """
    for version, shards in sorted(makers.preprocessing.items()):
        if version != PREPROCESSING_VERSION:
            findings.problems.append(
                f"preprocessing version {version} made {_shards(shards)}, this clipmill's is {PREPROCESSING_VERSION}"
            )
    same = set()
    for (path, digest), (contract, shards) in sorted(makers.vaes.items(), key=lambda item: item[0]):
        if not path or not os.path.isdir(path):
            where = f"the VAE at {path} is not there" if path else "the path of the VAE is not recorded"
            findings.notes.append(f"{where}: not compared with {_shards(shards)}")
            continue
        found = list(_vae_differences(path, contract))
        findings.problems += [f"the VAE at {path} {line}; it made {_shards(shards)}" for line in found]
        if not found:
            same.add((path, digest))
    return same


def _vae_differences(path: str, contract: Contract) -> Iterator[str]:
    try:
        info = describe_coder(path)
    except SettingsError as error:
        yield f"can't be read as the {contract.vae} of fingerprint {contract.fingerprint}: {one_line(error)}"
        return
    if info.fingerprint != contract.fingerprint:
        yield f"has the fingerprint {info.fingerprint} now, {contract.fingerprint} in the contract"
    for name in ("mean", "std"):
        now, then = tuple(getattr(info, name)), getattr(contract, name)
        if contract.codebook is None and now != then:
            yield f"has another scaling: {name} {_numbers(now)} now, {_numbers(then)} in the contract"


def _decode_problems(
    sql: duckdb.DuckDBPyConnection, samples: list[RecordedPsnr], same: set[tuple[str, str]], findings: Findings
) -> None:
    """Decodes sampled clips again whose VAE and source are at hand."""
    ready: list[RecordedPsnr] = []
    why: dict[str, list[RecordedPsnr]] = {}  # clips by the reason why they were not decoded
    for sample in samples:
        at_hand = (sample.vae_path, sample.contract.digest) in same
        (ready if at_hand else why.setdefault("their VAE is not at hand", [])).append(sample)
    if len(ready) > DECODED:
        findings.notes.append(f"{DECODED} of {len(ready):,} sampled clips were decoded again, from all over the shards")
        ready = [ready[len(ready) * number // DECODED] for number in range(DECODED)]
    with ProgressBar("verify", len(ready), "clips decoded") as progress:
        for done, (sample, found) in enumerate(decode_again(sql, ready), 1):
            progress.update(done)
            if isinstance(found, str):
                why.setdefault(found, []).append(sample)
            elif abs(found - sample.psnr) > TOLERANCE:
                findings.problems.append(
                    f"the clip {sample.clip_id} of the shard {sample.shard} decodes to {found:.2f} dB of its source "
                    f"now, {sample.psnr:.2f} dB was recorded"
                )
    for reason, clips in why.items():
        findings.notes.append(f"not re-decoded: {_some([sample.clip_id for sample in clips])}: {reason}")


def _numbers(values: Iterable[float]) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"


def _some(clips: list[str]) -> str:
    more = len(clips) - EXAMPLES
    return ", ".join(clips[:EXAMPLES]) + (f" and {more:,} more" if more > 0 else "")


def _shards(paths: list[str]) -> str:
    return f"{len(paths):,} shard{'s' * (len(paths) > 1)}, such as {paths[0]}"
