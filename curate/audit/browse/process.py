"""The parent's side of the child that answers questions: starts it, asks it, replaces it when a query takes it down."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import threading
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from curate.audit.browse.worker import serve
from curate.errors import UserError

SECONDS = 30.0  # of one question
GRACE_SECONDS = 5.0  # behind which a query that would not be interrupted is ended with its process
DIED = "the query took its process down, which was started again: ask for less"


class Answer(NamedTuple):
    value: dict[str, Any] | None
    body: bytes  # of a thumbnail


class Questioner:
    """Asks the child; any number of threads may. A context manager, which ends the child.

    Raises UserError at once where the catalog can't be opened.
    """

    def __init__(self, uri: str, memory_gb: float, seconds: float = SECONDS):
        self.uri, self.memory_gb, self.seconds = uri, memory_gb, seconds
        self._numbers = itertools.count()
        self._changing = threading.RLock()
        self._waiting: dict[int, tuple[Connection, Future[Answer]]] = {}
        self._start()

    def __enter__(self) -> Questioner:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, question: str, number: int | None = None, **given: Any) -> Answer:
        """Raises UserError with what was wrong with the question, or with how it ended."""
        number = self.number() if number is None else number
        answer = Future[Answer]()
        with self._changing:
            if not self._process.is_alive():
                self.restart()
            channel = self._channel
            self._waiting[number] = channel, answer
            asked = {"id": number, "question": question, "given": given, "seconds": self.seconds}
            try:
                channel.send_bytes(json.dumps(asked).encode())
            except OSError:
                answer.set_exception(UserError(DIED))
        try:
            return answer.result(self.seconds + GRACE_SECONDS)
        except TimeoutError:
            with self._changing:
                if channel is self._channel:
                    self.restart()
            raise UserError(DIED) from None
        finally:
            self._waiting.pop(number, None)

    def number(self) -> int:
        """Names a question that may have to be stopped."""
        return next(self._numbers)

    def stop(self, number: int) -> None:
        """Interrupts a question."""
        with self._changing:
            if number in self._waiting:
                self._channel.send_bytes(json.dumps({"stop": number}).encode())

    def restart(self) -> None:
        """The catalog as it is now, in a new process."""
        with self._changing:
            self._end()
            self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # threads of ours must not be copied
        self._channel, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs, self.uri, self.memory_gb), name="clipmill-browse", daemon=True
        )
        self._process.start()
        theirs.close()
        try:
            first = json.loads(self._channel.recv_bytes())
        except EOFError as error:
            self._process.join()
            raise UserError(
                f"reading the clips of {self.uri} ended with exit code {self._process.exitcode}: where memory is "
                "short, give less or more of it with --memory-gb"
            ) from error
        if "error" in first:
            self._process.join()
            raise UserError(first["error"])
        self.versions: dict[str, int] = first["versions"]
        threading.Thread(target=self._listen, args=(self._channel,), name="answers", daemon=True).start()

    def _listen(self, channel: Connection) -> None:
        """Hands out the answers of one process, until it ends."""
        with channel:
            while True:
                try:
                    head, _, body = channel.recv_bytes().partition(b"\n")
                except (EOFError, OSError):
                    break
                said = json.loads(head)
                _, answer = self._waiting.get(said["id"], (channel, Future[Answer]()))
                if "error" in said:
                    answer.set_exception((RuntimeError if said.get("ours") else UserError)(said["error"]))
                else:
                    answer.set_result(Answer(said["answer"], body))
        for asked, answer in list(self._waiting.values()):
            if asked is channel and not answer.done():
                answer.set_exception(UserError(DIED))

    def _end(self) -> None:
        self._process.kill()  # the thread that listens to it closes the channel
        self._process.join()
