"""The committer: file sets of finished units into the ledgers, and what came of the run so far."""

from __future__ import annotations

from collections.abc import Mapping

from curate.catalog.ledger import Ledger
from curate.catalog.unit_writer import FileSet
from curate.engines.tally import Tally
from stages.base import ClipStage


class Committer:
    """Commits a file set to each ledger in the order of the plan; `total` adds up the tallies of a run.

    Sources come before the rows that stages on clips made of them: after a crash in between, those clips are done
    again from the catalog.
    """

    def __init__(self, ledgers: Mapping[str, Ledger], stages: Mapping[str, ClipStage]):
        self.ledgers, self.stages = ledgers, stages
        self.total = Tally()

    def commit(self, files: FileSet) -> None:
        for table, ledger in self.ledgers.items():
            if not (of_table := files.of(table)):
                continue
            ledger.commit(of_table, redone=table in files.redone)
            if table in self.stages:
                self.stages[table].committed(files.done_clips.get(table, ()))
