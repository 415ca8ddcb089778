"""The writers of a Ray run: a few actors that gather rows of whole units and write them as files.

The payloads that were given to a writer are kept until its files are known, so a writer that dies costs a resend.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from curate.catalog.unit_writer import FileSet
from curate.engines.engine import Work
from curate.engines.ray_worker import WriterWorker
from curate.errors import EngineError, UserError

RESENDS = 3  # writers that die in a row, before the run gives up


@dataclass
class Closed:
    """What a writer has closed: its files, the units in them, and units whose payload was lost with a node."""

    files: FileSet | None
    written: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


@dataclass
class _Sent:
    """A call of `add` and its arguments."""

    unit_ids: list[str]
    failures: dict[str, str]
    skipped: frozenset[str]
    payloads: list[Any]
    rows: int
    size: int  # bytes
    ref: Any = None


@dataclass
class _Writer:
    actor: Any
    sent: list[_Sent] = field(default_factory=list)  # since the last close
    closing: tuple[Any, list[_Sent]] | None = None  # the call under way, and what its files hold


class Writers:
    """`add` gives payloads to the writers in turn; all of them close their files together."""

    def __init__(self, work: Work, count: int):
        self.work, self.count = work, count
        self.writers: list[_Writer] = []
        self.turn = self.rows = self.size = self.deaths = 0
        self.open_rows = self.open_bytes = 0  # given to writers, and in no closed file yet
        self.closed_at = time.monotonic()

    def add(
        self, unit_ids: list[str], payloads: list[Any], rows: int, size: int,
        failures: Mapping[str, str] | None = None, skipped: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        """Whole units of one payload, or one unit whose parts are the payloads. `failures` are reasons by unit id."""
        if len(self.writers) < self.count:
            self.writers.append(_Writer(self._start()))
        self.turn += 1
        sent = _Sent(unit_ids, dict(failures or {}), skipped, payloads, rows, size)
        self._send(self.writers[self.turn % len(self.writers)], sent)
        self.rows += rows
        self.size += size
        self.open_rows += rows
        self.open_bytes += size

    @property
    def most_rows(self) -> int:
        """Rows that the writers should be given ahead: for the files that each is closing, and for the next."""
        return (1 + self.count) * self.work.closing.rows

    def closing_refs(self) -> list[Any]:
        return [writer.closing[0] for writer in self.writers if writer.closing is not None]

    def close_if_due(self, now: bool) -> None:
        """Closes all files by the rule of the work, or because nothing else is under way (`now`)."""
        rule = self.work.closing
        late = time.monotonic() - self.closed_at >= rule.seconds
        if now or late or self.rows >= rule.rows or self.size >= rule.size:
            self._close()

    def take_closed(self, timeout: float = 0) -> Iterator[Closed]:
        """Of the writers that have closed their files."""
        import ray

        for index, writer in enumerate(self.writers):
            if writer.closing is None or not ray.wait([writer.closing[0]], timeout=timeout)[0]:
                continue
            ref, sent = writer.closing
            closed = Closed(None)
            try:
                for each in sent:
                    try:
                        ray.get(each.ref)
                        closed.written += each.unit_ids
                    except ray.exceptions.ObjectLostError:
                        closed.lost += each.unit_ids
                closed.files = ray.get(ref)
            except ray.exceptions.RayActorError as error:
                self._replace(index, error)
                continue
            except UserError as error:
                raise original(error) from error
            except ray.exceptions.RayTaskError as error:
                raise EngineError(f"can't write: {' '.join(str(original(error)).split())[:300]}") from error
            writer.closing, self.deaths = None, 0
            self.open_rows -= sum(each.rows for each in sent)
            self.open_bytes -= sum(each.size for each in sent)
            yield closed

    def finish(self) -> Iterator[Closed]:
        """Closes all writers and waits for their last files."""
        while any(writer.sent or writer.closing for writer in self.writers):
            self._close()
            yield from self.take_closed(timeout=0.5)

    def kill(self) -> None:
        import ray

        for writer in self.writers:
            ray.kill(writer.actor)
        self.writers = []

    def _close(self) -> None:
        for writer in self.writers:
            if writer.sent and writer.closing is None:
                writer.closing = (writer.actor.close.remote(self.work.schemas()), writer.sent)
                writer.sent = []
        self.rows = self.size = 0
        self.closed_at = time.monotonic()

    def _send(self, writer: _Writer, sent: _Sent) -> None:
        sent.ref = writer.actor.add.remote(sent.failures, sent.skipped, *sent.payloads)
        writer.sent.append(sent)

    def _replace(self, index: int, error: Exception) -> None:
        """A new writer in place of one that died: what is not known to be in files is sent again."""
        self.deaths += 1
        if self.deaths >= RESENDS:
            raise EngineError(f"writers can't work: {' '.join(str(error).split())[:300]}")
        old, new = self.writers[index], _Writer(self._start())
        for sent in [*(old.closing[1] if old.closing else ()), *old.sent]:
            self._send(new, sent)
        self.writers[index] = new

    def _start(self) -> Any:
        import ray

        return ray.remote(WriterWorker).options(num_cpus=0, max_restarts=0).remote(self.work.writer)


def original(error: Exception) -> Exception:
    """What a task raised in its worker, without Ray's own text around it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error
