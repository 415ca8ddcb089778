"""The lease: exactly one committer for each state table of a catalog.

Local catalogs: a POSIX record lock, which the kernel drops when the process dies, kill -9 included, and which
children do not inherit. Object stores: an object made by a conditional put. Its name carries a generation: a
lease is taken over by creating the next generation, which only one of several contenders can, and the highest
generation is never deleted; so "is it still mine" is one listing.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import socket
import threading
import time
import uuid
from typing import Any

from curate.errors import UserError, first_line
from curate.storage import filesystem, is_local, join, local_path
from models.files import write_whole

FOLDER = "_lease"
BEAT_SECONDS = 15.0  # how often a remote lease shows that its holder lives
STALE_SECONDS = 60.0  # a remote lease without a sign of life for so long is free

_held: set[str] = set()  # record locks do not exclude within one process, so this does


def _boot() -> str:
    """What a process id is relative to: the boot of this machine and the process namespace."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks: tells a process from a later one with its number."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]  # a zombie holds nothing


def _myself(run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _is_dead(holder: dict[str, Any]) -> bool:
    """True if the holder was a process of this machine and is there no longer; False also where unknown."""
    if holder.get("boot") != _boot():
        return False
    if os.path.isdir("/proc/self"):
        return _started(holder["pid"]) != holder.get("started")
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _refusal(uri: str, table: str, holder: dict[str, Any], more: str = "") -> UserError:
    return UserError(
        f"run {holder.get('run_id')} on {holder.get('host')} (pid {holder.get('pid')}) has been writing "
        f"{table!r} of {uri} since {holder.get('since')}; wait for it or stop it{more}"
    )


def acquire(uri: str, table: str, run_id: str) -> LocalLease | RemoteLease:
    """The lease on a state table; UserError, naming run, host and pid, while another live run holds it."""
    return (LocalLease if is_local(uri) else RemoteLease)(uri, table, run_id)


class LocalLease:
    def __init__(self, uri: str, table: str, run_id: str):
        import fcntl

        folder = os.path.join(local_path(uri), FOLDER)
        os.makedirs(folder, exist_ok=True)
        self.lock = os.path.realpath(os.path.join(folder, f"{table}.lock"))
        self.note = os.path.join(folder, f"{table}.json")  # apart: closing the lock file anywhere frees the lock
        if self.lock in _held:
            raise _refusal(uri, table, _read_local(self.note))
        self.file = open(self.lock, "a")  # noqa: SIM115 - open as long as the lease is held
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.file.close()
            raise _refusal(uri, table, _read_local(self.note)) from error
        try:
            write_whole(self.note, json.dumps(_myself(run_id)))
        except OSError as error:
            self.file.close()
            raise UserError(f"can't take the lease of {table!r} in {uri}: {first_line(error)}") from error
        _held.add(self.lock)

    def check(self) -> None:
        """Nothing can take a record lock away from a live process."""

    def release(self) -> None:
        if self.file.closed:
            return
        os.unlink(self.note)
        _held.discard(self.lock)
        self.file.close()


def _read_local(note: str) -> dict[str, Any]:
    try:
        with open(note) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


class RemoteLease:
    def __init__(self, uri: str, table: str, run_id: str):
        self.uri, self.table = uri, table
        self.fs, self.folder = filesystem(join(uri, FOLDER))
        self.holder = _myself(run_id)
        there = self._generations()
        latest = max(there, default=0)
        if latest:
            self._refuse_if_alive(there[latest])
        self.generation = latest + 1
        self.path = f"{self.folder}/{table}.{self.generation:09d}.json"
        try:
            self.fs.pipe_file(self.path, self._note(), mode="create")
        except FileExistsError as error:
            raise _refusal(uri, table, self._read(self.path)) from error
        there = self._generations()
        if max(there, default=0) != self.generation:  # the listing above was overtaken long ago
            self.fs.rm_file(self.path)
            raise _refusal(uri, table, self._read(there[max(there)]))
        for older in there.values():
            if older != self.path:
                self.fs.rm_file(older)
        self.stop = threading.Event()
        self.writing = threading.Lock()
        self.thread = threading.Thread(target=self._beat, name=f"lease of {table}", daemon=True)
        self.thread.start()

    def check(self) -> None:
        """UserError if another run took the lease over, as it may after a minute without a sign of life."""
        try:
            there = self._generations()
        except Exception as error:  # whatever the store's client raises
            raise UserError(f"can't read the lease of {self.table!r} in {self.uri}: {first_line(error)}") from error
        if self.generation not in there or max(there) != self.generation:
            taker = self._read(there[max(there)]) if there else {}
            raise _refusal(self.uri, self.table, taker, "; this run was silent for a minute and lost its place")

    def release(self) -> None:
        """The object stays, marked as free: the highest generation must not vanish."""
        if self.stop.is_set():
            return
        self.stop.set()
        with self.writing, contextlib.suppress(Exception):  # else it ends with this process, or a minute later
            self.fs.pipe_file(self.path, self._note(released=True))

    def _note(self, released: bool = False) -> bytes:
        return json.dumps(self.holder | {"released": released}).encode()

    def _beat(self) -> None:
        while not self.stop.wait(BEAT_SECONDS):
            with self.writing:
                if self.stop.is_set():
                    return
                try:
                    if self.fs.exists(self.path):  # else it was taken over: don't bring it back
                        self.fs.pipe_file(self.path, self._note())
                except Exception:
                    continue  # the next beat tries again; check() tells when it was too late

    def _generations(self) -> dict[int, str]:
        return _remote_notes(self.fs, self.folder).get(self.table, {})

    def _read(self, path: str) -> dict[str, Any]:
        try:
            return json.loads(self.fs.cat_file(path))
        except (FileNotFoundError, ValueError):
            return {}

    def _refuse_if_alive(self, path: str) -> None:
        holder = self._read(path)
        if not holder or holder.get("released") or _is_dead(holder):
            return
        silent = self._store_time() - self._written(path)
        if silent < STALE_SECONDS:
            more = "" if holder.get("boot") == _boot() else f" (if it is dead, its place is free {STALE_SECONDS:.0f} s "
            more += "" if not more else f"after its last sign of life, which was {max(silent, 0):.0f} s ago)"
            raise _refusal(self.uri, self.table, holder, more)

    def _store_time(self) -> float:
        """Now by the store's clock, which two hosts share as they may not share their own."""
        probe = f"{self.folder}/probe-{uuid.uuid4().hex}"
        self.fs.pipe_file(probe, b"")
        try:
            return self._written(probe)
        finally:
            self.fs.rm_file(probe)

    def _written(self, path: str) -> float:
        try:
            return self.fs.modified(path).timestamp()
        except FileNotFoundError:
            return time.time()


def _remote_notes(fs: Any, folder: str) -> dict[str, dict[int, str]]:
    """table -> generation -> path of the lease objects below a folder."""
    try:
        names = fs.ls(folder, detail=False)
    except FileNotFoundError:
        names = []
    found: dict[str, dict[int, str]] = {}
    for name in names:
        if match := re.fullmatch(r"(.+)\.(\d{9})\.json", name.rsplit("/", 1)[-1]):
            found.setdefault(match[1], {})[int(match[2])] = name
    return found


def live_runs(uri: str) -> set[str]:
    """Ids of the runs that hold a lease and are not known to be dead."""
    if is_local(uri):
        folder = os.path.join(local_path(uri), FOLDER)
        names = os.listdir(folder) if os.path.isdir(folder) else []
        notes = [_read_local(os.path.join(folder, name)) for name in names if name.endswith(".json")]
    else:
        fs, folder = filesystem(join(uri, FOLDER))
        paths = [found[max(found)] for found in _remote_notes(fs, folder).values()]
        notes = [json.loads(content) for content in fs.cat(paths).values()] if paths else []
    return {note["run_id"] for note in notes if note and not note.get("released") and not _is_dead(note)}
