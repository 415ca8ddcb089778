"""Passes and leases: numbers are unique, and a run that lost its place can't change what its successor commits."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from deltalake import DeltaTable

from curate.catalog import lease, state
from curate.catalog.catalog import Catalog
from curate.catalog.data_files import Rewrite
from curate.errors import UserError
from curate.run.verify import verify
from curate.storage import filesystem, join
from tests.curate.ledgers import SCHEMAS, commit, expected, files_of, known_of, open_ledger, seen, work

OLD = dict.fromkeys("abcde", "old")
OVERTAKEN = r"another run took 'sources' of .* over; this one has stopped"
NEW = dict.fromkeys("abcde", "new")


class NoLease:
    """The lease of a run that was asleep while another took it over: it notices nothing."""

    def check(self) -> None:
        pass

    def release(self) -> None:
        pass


@contextmanager
def asleep(uri: str) -> Iterator:
    """A ledger whose lease another run may take at any moment, and which does not notice by itself."""
    with open_ledger(uri) as ledger:
        ledger.lease.release()
        ledger.lease = NoLease()
        yield ledger


def stored_files(catalog: Catalog) -> dict[str, set[str]]:
    return {name: set(table.file_uris()) for name in catalog.tables() if (table := catalog.table(name))}


def test_every_pass_of_every_run_has_a_number_of_its_own(tmp_path):
    uri = str(tmp_path)
    numbers = []
    for _ in range(3):
        with open_ledger(uri) as ledger:
            numbers += [ledger.begin(SCHEMAS).pass_number for _ in range(2)]
            commit(ledger, OLD, redone=bool(numbers[2:]))
            numbers.append(ledger.taken[0])
            ledger.maintain()
    assert numbers == sorted(set(numbers))
    assert seen(uri) == expected(OLD)


def test_a_pass_number_whose_commit_was_lost_with_a_damaged_log_is_not_given_again(tmp_path):
    uri = str(tmp_path)
    work(uri, OLD, maintain=False)
    with open_ledger(uri) as ledger:
        taken = ledger.begin(SCHEMAS).pass_number
    version = Catalog.open(uri).table("sources").version()
    for each in (version, version - 1):  # as verify says of the last log entry: delete it
        (tmp_path / "sources" / "_delta_log" / f"{each:020d}.json").unlink()
    assert state.number(Catalog.open(uri).table("sources"), state.PASS) < taken
    with open_ledger(uri) as ledger:
        assert ledger.begin(SCHEMAS).pass_number > taken
    assert seen(uri) == expected(OLD)


def test_while_rows_of_several_passes_are_there_the_latest_in_the_state_table_counts(tmp_path):
    uri = str(tmp_path)
    with open_ledger(uri) as ledger:
        commit(ledger, OLD)
        commit(ledger, NEW | {"c": "older"}, redone=True)
        commit(ledger, {"c": "new"}, redone=True)
        passes = {n for part in ledger.catalog.read(ledger.tables["sources"]) for n in part["pass"].to_pylist()}
        assert len(passes) == 3  # all rows are there
        assert seen(uri) == expected(NEW)
        assert known_of(ledger) == NEW
        assert verify(ledger.catalog) == []


def test_sources_made_again_in_one_pass_before_and_after_a_look_at_the_ledger_are_seen_once(tmp_path):
    """A rebuild asks for what is known while it commits, and goes on under the same pass."""
    uri = str(tmp_path)
    with open_ledger(uri) as ledger:
        commit(ledger, OLD)
        writer = ledger.begin(SCHEMAS)
        ledger.commit(files_of(ledger, writer, dict.fromkeys("ab", "new")), redone=True)
        assert known_of(ledger) == OLD | dict.fromkeys("ab", "new")
        ledger.commit(files_of(ledger, writer, dict.fromkeys("cde", "new")), redone=True)
        assert seen(uri) == expected(NEW)
    assert verify(Catalog.open(uri)) == []


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_lost_its_lease_is_refused_and_its_successor_keeps_nothing_of_it(tmp_path, begun):
    uri = str(tmp_path)
    work(uri, {"a": "old"})
    with asleep(uri) as first:
        writer = first.begin(SCHEMAS)
        with open_ledger(uri) as second:
            written = files_of(second, second.begin(SCHEMAS), {"c": "second"})
            files = files_of(first, writer, {"b": "first"})
            if begun:
                second.commit(written)
            with pytest.raises(UserError, match=OVERTAKEN):
                first.commit(files)
            if not begun:
                second.commit(written)
            wanted = {"a": "old", "c": "second"}
            assert seen(uri) == expected(wanted)
            assert known_of(second) == wanted
    assert verify(Catalog.open(uri)) == []


def test_a_run_that_lost_its_lease_between_two_tables_commits_leaves_nothing_that_counts(tmp_path, monkeypatch):
    uri = str(tmp_path)
    work(uri, {"a": "old"})
    real, second = DeltaTable.create_write_transaction, open_ledger(uri)

    def overtaken(table, actions, *args, **kwargs):
        if "sources" in table.table_uri and actions:
            monkeypatch.undo()
            second.__enter__()
            commit(second, {"c": "second"})
        return real(table, actions, *args, **kwargs)

    with asleep(uri) as first:
        files = files_of(first, first.begin(SCHEMAS), {"b": "first", "d": "first"})
        monkeypatch.setattr(DeltaTable, "create_write_transaction", overtaken)
        with pytest.raises(UserError, match=OVERTAKEN):
            first.commit(files)
    second.__exit__(None, None, None)
    assert seen(uri) == expected({"a": "old", "c": "second"})
    assert verify(Catalog.open(uri)) == []


@pytest.mark.parametrize("what", ["compacts", "compacts once begun", "forgets"])
def test_a_run_that_lost_its_lease_rewrites_nothing(tmp_path, what):
    uri = str(tmp_path)
    with open_ledger(uri) as ledger:
        for key in OLD:
            commit(ledger, {key: "old"})
    with asleep(uri) as first:
        if what == "compacts once begun":
            first.begin(SCHEMAS)
        with open_ledger(uri) as second:
            files = files_of(second, second.begin(SCHEMAS), {"f": "old"})
            before = stored_files(second.catalog)
            with pytest.raises(UserError, match=OVERTAKEN):
                if what == "forgets":
                    first.forget(["a"])
                else:
                    first.maintain()
            assert stored_files(second.catalog) == before
            second.commit(files)
    assert seen(uri) == expected(OLD | {"f": "old"})
    assert verify(Catalog.open(uri)) == []


def test_a_run_that_loses_its_lease_while_a_worker_rewrites_is_refused(tmp_path):
    uri = str(tmp_path)
    with open_ledger(uri) as ledger:
        for key in OLD:
            commit(ledger, {key: "old"})
    second = open_ledger(uri)

    def rewrite(job: Rewrite):
        if not hasattr(second, "lease"):
            second.__enter__()
            second.maintain()
        return job()

    with asleep(uri) as first, pytest.raises(UserError, match=OVERTAKEN):
        first.maintain(rewrite)
    second.__exit__(None, None, None)
    assert seen(uri) == expected(OLD)
    assert verify(Catalog.open(uri)) == []


def take_over(uri: str, run_id: str) -> None:
    """Another host's run takes the lease of a store, as it may after a minute without a sign of life."""
    fs, folder = filesystem(join(uri, lease.FOLDER))
    (path,) = [name for name in fs.ls(folder, detail=False) if "/sources." in name]
    generation = int(path.rsplit(".", 2)[-2])
    note = json.dumps({"run_id": run_id, "host": "elsewhere", "pid": 1, "boot": "another machine"})
    fs.pipe_file(f"{folder}/sources.{generation + 1:09d}.json", note.encode())


@pytest.mark.slow
def test_a_driver_that_lost_its_lease_of_a_bucket_is_refused_at_its_next_commit(bucket):
    uri = f"{bucket}/catalog"
    with open_ledger(uri) as ledger:
        files = files_of(ledger, ledger.begin(SCHEMAS), OLD)
        before = stored_files(ledger.catalog)
        ledger.lease.stop.set()  # it is asleep: no sign of life, and no release at the end
        take_over(uri, uuid.uuid4().hex)
        for action in (lambda: ledger.commit(files), lambda: ledger.begin(SCHEMAS), lambda: ledger.forget(OLD)):
            with pytest.raises(UserError, match=r"on elsewhere .*lost its place"):
                action()
        assert stored_files(ledger.catalog) == before
    assert seen(uri) == {}


@pytest.mark.slow
def test_two_drivers_on_a_bucket_of_which_one_was_asleep_keep_one_truth(bucket):
    uri = f"{bucket}/catalog"
    work(uri, {"a": "old"})
    with asleep(uri) as first:
        writer = first.begin(SCHEMAS)
        with open_ledger(uri) as second:
            written = files_of(second, second.begin(SCHEMAS), {"c": "second"})
            files = files_of(first, writer, {"b": "first"})
            with pytest.raises(UserError, match=OVERTAKEN):
                first.commit(files)
            second.commit(written)
    assert seen(uri) == expected({"a": "old", "c": "second"})
    assert verify(Catalog.open(uri)) == []
