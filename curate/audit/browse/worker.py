"""The child process of `clipmill browse`: holds the confined catalog and answers questions, several at a time.

A question is a line of JSON, so is its answer: no code crosses in either direction. A query that takes too long is
interrupted; one that can't be interrupted ends with this process, which its parent kills and starts again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import duckdb
from pydantic import StrictInt, StrictStr, TypeAdapter, ValidationError

from curate.audit.browse.clip_choice import ClipChoice, QueryClips, TriedGate
from curate.audit.browse.confined import Confined, open_confined
from curate.audit.browse.questions import QUESTIONS
from curate.catalog.catalog import Catalog
from curate.catalog.gates import one_line, time_limit
from curate.errors import DamagedError, UserError, first_line
from curate.query.columns.hints import reworded
from curate.query.columns.missing import missing_name
from curate.query.columns.words import ColumnWords, of_catalog

AT_ONCE = 4  # questions
SPARE_BYTES = 6 << 30  # of address space, beside twice the memory of DuckDB: libraries, threads, Arrow
MODELS: dict[str, Any] = {
    "selection": ClipChoice, "gate": TriedGate, "text": StrictStr, "name": StrictStr, "clip_id": StrictStr,
    "after": StrictInt | None,
}  # fmt: skip


def serve(channel: Connection, uri: str, memory_gb: float) -> None:
    """What the process runs. Ends when the parent has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    _limit_memory(memory_gb)
    try:
        confined = open_confined(Catalog.open(uri), memory_gb)
    except (UserError, DamagedError) as error:
        channel.send_bytes(json.dumps({"error": str(error)}).encode())
        return
    channel.send_bytes(json.dumps({"versions": confined.versions}).encode())
    Answers(channel, confined).loop()
    os._exit(0)  # whatever queries are running


class Answers:
    """Takes questions off the channel and answers each from a thread and a cursor of its own."""

    def __init__(self, channel: Connection, confined: Confined):
        self._channel, self._confined, self._queries = channel, confined, QueryClips()
        self._sending = threading.Lock()
        self._running: dict[int, duckdb.DuckDBPyConnection] = {}

    def loop(self) -> None:
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="question") as threads:
            while True:
                try:
                    asked = json.loads(self._channel.recv_bytes())
                except (EOFError, OSError):
                    os._exit(0)
                if "stop" in asked:
                    if (cursor := self._running.get(asked["stop"])) is not None:
                        cursor.interrupt()
                    continue
                threads.submit(self._answer, asked)

    def _answer(self, asked: dict[str, Any]) -> None:
        try:
            answer, body = self._found(asked)
        except UserError as error:
            answer, body = {"error": self._explained(error, str(error))}, b""
        except duckdb.InterruptException:
            answer, body = {"error": f"stopped, or over {asked['seconds']:g} s: ask for less"}, b""
        except duckdb.OutOfMemoryException:
            answer, body = {"error": "takes more memory than `--memory-gb` allows: ask for less"}, b""
        except duckdb.Error as error:
            answer, body = {"error": self._explained(error, one_line(error))}, b""
        except MemoryError:
            answer, body = {"error": "takes more memory than there is: ask for less"}, b""
        except Exception as error:  # the page says it; the process goes on
            answer, body = {"error": f"{type(error).__name__}: {first_line(error)}", "ours": True}, b""
        with self._sending, contextlib.suppress(OSError):
            self._channel.send_bytes(json.dumps({"id": asked["id"], **answer}).encode() + b"\n" + body)

    def _explained(self, error: Exception, said: str) -> str:
        """What an error says; of one about a column or table that is not there with the one that is meant."""
        missing = missing_name(error)
        return said if missing is None else reworded(said, missing, self._columns)

    def _columns(self) -> list[ColumnWords]:
        with self._confined.cursor() as cursor:
            return of_catalog(cursor)

    def _found(self, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        if asked["question"] == "thumbnail":
            place = asked["given"]["place"]
            return {"answer": None}, self._confined.thumbnails.jpegs([place]).get(place, b"")
        given = {name: _checked(name, value) for name, value in asked["given"].items()}
        with self._confined.cursor() as cursor:
            self._running[asked["id"]] = cursor
            try:
                with time_limit(cursor, asked["seconds"]):
                    return {"answer": QUESTIONS[asked["question"]](self._queries, cursor, **given)}, b""
            finally:
                del self._running[asked["id"]]


def _checked(name: str, value: Any) -> Any:
    """What a question is given, as its type where it has one. Raises UserError."""
    if name not in MODELS:
        return value
    try:
        return TypeAdapter(MODELS[name]).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, (name, *first['loc'])))}: {first['msg']}") from error


def _limit_memory(memory_gb: float) -> None:
    """A value that one function makes is not in DuckDB's own account: this bounds it too."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        most = int(2 * memory_gb * 1e9) + SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
