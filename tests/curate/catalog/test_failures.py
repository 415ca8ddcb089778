"""Full disks and refused credentials in the middle: nothing is failed or half-visible, and the same command goes on."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from curate.catalog.catalog import Catalog
from curate.errors import DamagedError, UserError
from curate.run.verify import verify
from tests.curate.ledgers import SCHEMAS, before_each_change, expected, files_of, in_child, open_ledger, seen, work
from tests.full_disk import files_of_at_most

pytestmark = pytest.mark.slow

KEYS = "abcdef"
OLD = dict.fromkeys(KEYS, "old")
NEW = OLD | dict.fromkeys(KEYS[2:], "new") | {"later": "new"}


def check(uri: str, *allowed: dict[str, str]) -> dict[str, tuple[str, int, int]]:
    """Every source is whole, at one of its allowed versions; none is failed. What is seen."""
    now = seen(uri)
    for key, found in now.items():
        assert found in [expected(wanted).get(key) for wanted in allowed]
    assert verify(Catalog.open(uri)) == []
    return now


def test_a_reader_sees_whole_sources_at_every_moment_of_a_run(tmp_path):
    """Between a data table's commit and the state table's it sees the picture before."""
    uri = str(tmp_path)
    pictures = []

    def look(name: str) -> None:
        if name != "file" and os.path.exists(os.path.join(uri, "sources", "_delta_log")):
            pictures.append(tuple(sorted(check(uri, OLD, NEW).items())))

    for wanted in (OLD, NEW):
        with before_each_change(look):
            work(uri, wanted)
    assert len(pictures) > 30
    # A picture changes only with a commit of the state table: as many as there were batches.
    assert len(set(pictures)) == 1 + 2 + 2
    assert seen(uri) == expected(NEW)


def test_a_disk_that_is_full_from_any_change_on_costs_nothing_but_time(tmp_path):
    work(str(tmp_path / "before"), OLD)
    for at in itertools.count(1, 3):
        uri = str(shutil.copytree(tmp_path / "before", tmp_path / f"{at}"))
        changes = itertools.count(1)
        with ExitStack() as stack:

            def fill(name: str, changes=changes, at=at, stack=stack) -> None:
                if next(changes) == at:
                    stack.enter_context(files_of_at_most(10))

            failed = False
            with before_each_change(fill):
                try:
                    work(uri, NEW)
                except (UserError, OSError) as error:
                    failed = True
                    assert "\n" not in str(error)
        check(uri, OLD, NEW)
        work(uri, NEW)
        assert check(uri, NEW) == expected(NEW)
        if not failed:
            break
    assert at > 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk; the limit on file sizes stands for it")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("free", [0, 12, 24, 40, 64])
def test_a_real_disk_that_fills_up_in_the_middle_costs_nothing_but_time(disk, free):
    uri = str(disk / "catalog")
    work(uri, OLD)
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, max(0, ballast.stat().st_size - free * 1024))
    with pytest.raises((UserError, OSError), match=r"space|disk"):
        for number in itertools.count():
            work(uri, NEW | {f"{number}": "new"})
    ballast.unlink()
    names = {**NEW, **{f"{number}": "new" for number in range(100)}}
    check(uri, OLD, names)
    work(uri, NEW)
    assert set(check(uri, names)) >= set(NEW)


def refuse(endpoint: str, after: str) -> None:
    """From so many requests on, moto's server refuses credentials that it does not know ('inf': never)."""
    plain = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", after.encode(), plain, method="POST")
    urllib.request.urlopen(request).close()


def work_refused(environment: dict[str, str], uri: str, wanted: dict[str, str], at: int, endpoint: str) -> None:
    """A run whose credentials are refused from a change on: exits with 0 if that never came, 3 where it was told."""
    os.environ.update(environment)
    changes = itertools.count(1)

    def count(name: str) -> None:
        if next(changes) == at:
            refuse(endpoint, "0")

    with before_each_change(count):
        try:
            work(uri, wanted)
        except (UserError, DamagedError, OSError) as error:
            os._exit(3 if "\n" not in str(error) else 4)


def test_credentials_that_are_refused_in_the_middle_cost_nothing_but_time(bucket, s3_server):
    uri = f"{bucket}/catalog"
    for at, wanted in ((2, OLD), (5, OLD), (7, OLD), (3, NEW), (6, NEW), (9, NEW)):
        child = in_child(work_refused, uri, wanted, at, s3_server)
        try:
            child.join()
        finally:
            refuse(s3_server, "inf")
        assert child.exitcode == 3
        if Catalog.open(uri).tables():
            check(uri, OLD, NEW)
    work(uri, NEW)
    assert seen(uri) == expected(NEW)
    assert verify(Catalog.open(uri)) == []


def test_a_refused_driver_says_so_in_one_line_and_its_lease_does_not_hide_it(bucket, s3_server):
    uri = f"{bucket}/catalog"
    work(uri, OLD)
    with open_ledger(uri) as ledger:
        files = files_of(ledger, ledger.begin(SCHEMAS), NEW)
        refuse(s3_server, "0")
        try:
            for action in (lambda: ledger.commit(files), lambda: ledger.begin(SCHEMAS), lambda: ledger.forget(KEYS)):
                with pytest.raises(UserError, match=r"^can't (read|write) ") as caught:
                    action()
                assert "\n" not in str(caught.value)
        finally:
            refuse(s3_server, "inf")
        ledger.commit(files, redone=True)
    assert seen(uri) == expected(NEW)


@pytest.mark.parametrize("when", ["before its lease", "with its lease"])
def test_a_run_that_can_t_take_its_lease_leaves_it_free(tmp_path, when):
    uri = str(tmp_path)
    if when == "with its lease":
        work(uri, OLD)
    with files_of_at_most(10), pytest.raises((UserError, OSError), match="too large"):
        work(uri, NEW)
    work(uri, NEW)
    assert seen(uri) == expected(NEW)


def test_a_catalog_of_an_earlier_format_is_refused_in_one_line(tmp_path, capsys):
    from curate.cli.main import main

    (tmp_path / "catalog.json").write_text('{"format": "clipmill catalog", "version": 1}')
    (tmp_path / "sources" / "_delta_log").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    said = r"the catalog at .* is of version 1, this clipmill reads version 2: make it again with `clipmill run`"
    for opens in (Catalog.open, Catalog.open_or_create):
        with pytest.raises(UserError, match=said) as caught:
            opens(str(tmp_path))
        assert "\n" not in str(caught.value)
    assert main(["sql", "SELECT 1", "--catalog", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
