"""The log of a Delta table: which of its files are damaged, and what can be done about each.

Delta itself refuses a truncated entry without naming it, and passes over an empty one, which is what a power
cut leaves: the rows that it named are then gone without a word.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from curate.catalog import parquet

RESTORE = "restore it from a backup"
ACTIONS = {"add", "remove", "metaData", "protocol", "txn", "commitInfo", "domainMetadata", "cdc"}
_ENTRY = re.compile(r"(\d{20})\.json")
_NUMBERED = re.compile(r"(\d{20})\..+")  # entries, checkpoints and checksums
_UNFINISHED = re.compile(r"_commit_.+\.tmp")  # of a commit that was killed
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")


def damages(fs: Any, folder: str) -> list[str]:
    """One line for each damaged file of the log of the table at `folder`, with what can be done about it."""
    log = f"{folder}/_delta_log"
    entries, checkpoints = {}, {}
    for path in fs.ls(log, detail=False):
        name = path.rsplit("/", 1)[-1]
        if match := _ENTRY.fullmatch(name):
            entries[int(match[1])] = path
        elif match := _CHECKPOINT.fullmatch(name):
            checkpoints[int(match[1])] = path
    lines = []
    base = -1  # the version that a sound checkpoint stands for
    for version, path in sorted(checkpoints.items()):
        if (what := parquet.damage(fs, path)) is None:
            base = version
        else:
            before = all(number in entries for number in range(base + 1, version + 1))
            mend = f"delete it and {log}/_last_checkpoint: the entries before it say the same" if before else RESTORE
            lines.append(f"the checkpoint {path} {what}; {mend}")
    latest = max(entries, default=base)
    for version, path in sorted(entries.items()):
        if (what := _wrong_entry(fs, path)) is not None:
            lines.append(f"the log entry {path} {what}; {_mend(version, base, latest)}")
    gone = next((number for number in range(base + 1, latest) if number not in entries), None)
    if gone is not None:
        lines.append(f"the log entry {log}/{gone:020d}.json is missing; {RESTORE}")
    return lines


def _mend(version: int, base: int, latest: int) -> str:
    if version <= base:
        return "only a look at earlier versions needs it: delete it"
    if version == latest and version > 0:
        return "it is the last one: delete it, and the table is as before that commit (then verify again)"
    return f"{RESTORE}: later entries build on it"


def _wrong_entry(fs: Any, path: str) -> str | None:
    lines = fs.cat_file(path).splitlines()
    if not lines:
        return "is empty"
    for number, line in enumerate(lines, 1):
        try:
            action = json.loads(line)
        except ValueError:
            return f"is cut off or damaged (line {number} is no JSON)"
        if not isinstance(action, dict) or not set(action) <= ACTIONS:
            return f"is damaged (line {number} is no action of Delta)"
    return None


def has_empty_entry(folder: str, version: int) -> bool:
    """True if an entry that a local table's version builds on holds nothing; looks at sizes alone."""
    log = os.path.join(folder, "_delta_log")
    try:
        with open(os.path.join(log, "_last_checkpoint")) as file:
            base = int(json.load(file)["version"])
    except (OSError, ValueError, KeyError, TypeError):
        base = -1
    for number in range(version, base, -1):
        try:
            if os.stat(os.path.join(log, f"{number:020d}.json")).st_size == 0:
                return True
        except OSError:  # cleaned up: a checkpoint stands for it
            return False
    return False


def drop_before(fs: Any, folder: str, version: int) -> int:
    """Deletes what the log of the table at `folder` says of versions before this one, whose checkpoint stands for
    them; how many files. The statistics in them are copies of values of rows that may be gone.
    """
    dropped = 0
    for path in fs.ls(f"{folder}/_delta_log", detail=False):
        name = path.rsplit("/", 1)[-1]
        found = _NUMBERED.fullmatch(name)
        if (found and int(found[1]) < version) or _UNFINISHED.fullmatch(name):
            fs.rm_file(path)
            dropped += 1
    return dropped
