"""`verify --sources` and `status --check`: find sources that are gone or that changed since they were scanned."""

from __future__ import annotations

import datetime
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.progress_bar import ProgressBar
from stages.decode.sources import file_status, open_source
from stages.frames import SourceError

THREADS = 16
AHEAD = 64  # sources asked for while the oldest answer is waited for
SAME_TIME_S = 0.001  # a table holds microseconds


class SourceProblem(NamedTuple):
    """A source that is not as it was when it was scanned."""

    uri: str
    kind: Literal["gone", "changed", "unreadable"]
    what: str  # the predicate of a sentence about it

    def __str__(self) -> str:
        return f"source {self.uri} {self.what}"


class _Scanned(NamedTuple):
    """A source as it was when it was scanned, at the place where it lies now."""

    uri: str
    bytes: int | None
    modified_at: datetime.datetime | None  # UTC, without a zone
    content_hash: str | None


def source_problems(catalog: Catalog, rate: float | None = None, hashes: bool = False) -> Iterator[SourceProblem]:
    """Each done source that is gone, can't be read, or has other bytes than when it was scanned.

    The size and the time of change are looked at. Where the time differs, and with `hashes` always, the whole source
    is read: a copy of the same bytes is no problem. At most `rate` sources are looked at in a second.
    """
    with connect(catalog) as sql, ThreadPoolExecutor(THREADS) as pool:
        chosen = "SELECT uri, bytes, modified_at, content_hash FROM sources WHERE status = 'done'"
        total = sql.execute(f"SELECT count(*) FROM ({chosen})").fetchall()[0][0]
        reader = sql.sql(f"{chosen} ORDER BY uri").to_arrow_reader(4096)
        sources = (_Scanned(**row) for batch in reader for row in batch.to_pylist())
        waiting: deque[Future[SourceProblem | None]] = deque()
        began = time.monotonic()
        with ProgressBar("sources", total, "sources") as bar:
            for number, source in enumerate(sources):
                if rate is not None:
                    time.sleep(max(0.0, began + number / rate - time.monotonic()))
                waiting.append(pool.submit(_problem, source, hashes))
                if len(waiting) > AHEAD:
                    yield from _answer(waiting, bar)
            while waiting:
                yield from _answer(waiting, bar)


def _answer(waiting: deque[Future[SourceProblem | None]], bar: ProgressBar) -> Iterator[SourceProblem]:
    """The oldest answer, if it is a problem."""
    problem = waiting.popleft().result()
    bar.update(bar.done + 1)
    if problem is not None:
        yield problem


def _problem(source: _Scanned, hashes: bool) -> SourceProblem | None:
    uri = source.uri
    try:
        found = file_status(uri)
        if found is None:
            return SourceProblem(uri, "gone", "is gone")
        if found.size is not None and source.bytes is not None and found.size != source.bytes:
            sizes = f"has {found.size:,} bytes, and had {source.bytes:,} when it was scanned"
            return SourceProblem(uri, "changed", sizes)
        if source.content_hash is None or not (hashes or _other_time(source.modified_at, found.modified)):
            return None
        with open_source(uri) as file:
            if file.content_hash() != source.content_hash:
                return SourceProblem(uri, "changed", "has other bytes than when it was scanned")
    except SourceError as error:
        return SourceProblem(uri, "unreadable", str(error))
    return None


def _other_time(then: datetime.datetime | None, now: float | None) -> bool:
    if then is None or now is None:
        return False
    return abs(then.replace(tzinfo=datetime.UTC).timestamp() - now) > SAME_TIME_S
