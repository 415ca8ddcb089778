"""kill -9 of a purge, before and after each thing that it changes and at random moments: it is finished afterwards.

CI kills a few times; `CLIPMILL_KILLS=100 pytest tests/curate/removal/test_purge_killed.py` goes on for longer.
"""

import os
import random
import shutil
import signal
import subprocess
import sys

import pytest

from curate.catalog.catalog import Catalog
from curate.cli.main import main
from curate.datasets.files import open_dataset
from curate.removal.plan import unfinished
from curate.run.command import run_recipes
from curate.run.verify import verify
from tests.curate.removal.searching import all_samples, holding, values_of
from tests.curate.running import INLINE, ask

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("CLIPMILL_KILLS", "3"))
# Ends itself by -9 at the n-th change: a file that is renamed or removed, a commit, checkpoint or vacuum. 0: counts.
DIES = """
import os, signal, sys
sys.dont_write_bytecode = True  # which renames files too, once
left, changes = int(sys.argv.pop(1)), 0

def change(*_):
    global changes
    changes += 1
    if changes == left:
        os.kill(os.getpid(), signal.SIGKILL)

def hook(event, args):
    if event in ("os.rename", "os.remove"):
        change()

from deltalake import DeltaTable
for name in ("create_write_transaction", "vacuum", "create_checkpoint"):
    def wrapped(*args, _call=getattr(DeltaTable, name), **kwargs):
        change()
        return _call(*args, **kwargs)
    setattr(DeltaTable, name, wrapped)
import curate.catalog.catalog as c
written = c.write_deltalake
c.write_deltalake = lambda *args, **kwargs: (change(), written(*args, **kwargs))
sys.addaudithook(hook)
from curate.cli.main import main
code = main()
print("changes", changes)
sys.exit(code)
"""


def start(made, at, *arguments):
    command = [sys.executable, "-P", "-c", DIES, str(at), "purge", "--catalog", str(made.catalog), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed(made, at, *arguments):
    """Whether the purge died."""
    process = start(made, at, *arguments)
    _, error = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), error
    return process.returncode != 0


def check(made, values, samples, gone):
    """What every command may count on, whatever was killed: purged as a whole, and nothing else lost."""
    catalog = Catalog.open(str(made.catalog))
    assert unfinished(catalog) is None
    assert holding(values, made.catalog, made.datasets) == set()
    assert verify(catalog) == []
    left = {clip for (clip,) in ask(made.catalog, "SELECT clip_id FROM clips")}
    assert len(left) == 12
    assert all_samples(made.catalog) == {clip: fields for clip, fields in samples.items() if clip in left}
    assert len(ask(made.catalog, "SELECT * FROM removals")) == 1
    successor = open_dataset(open_dataset(made.datasets / "all").retired["successor"])
    assert (successor.samples, len(list(made.datasets.iterdir()))) == (8, 2)
    assert not (set(successor.columns(["clip_id"])["clip_id"].to_pylist()) & gone)


def test_killed_at_any_change_and_killed_again_a_purge_comes_to_its_end(made):
    made.dataset()
    where = ("--where", f"uri = '{made.film(1)}'", "--yes")
    values, samples = values_of(made.catalog, where[1]), all_samples(made.catalog)
    gone = {clip for (clip,) in ask(made.catalog, f"SELECT clip_id FROM clips WHERE {where[1]}")}
    pristine = made.catalog.parent / "pristine"
    shutil.copytree(made.catalog, pristine / "catalog")
    shutil.copytree(made.datasets, pristine / "datasets")
    process = start(made, 0, *where)
    said, error = process.communicate()
    assert process.returncode == 0, error
    changes = int(said.rsplit("changes ", 1)[1])
    assert changes > 30
    check(made, values, samples, gone)
    dice = random.Random(KILLS)
    for number in range(KILLS):
        for name in ("catalog", "datasets"):
            shutil.rmtree(made.catalog.parent / name)
            shutil.copytree(pristine / name, made.catalog.parent / name)
        low, high = number * changes // KILLS + 1, (number + 1) * changes // KILLS
        died = killed(made, dice.randint(low, high), *where)
        if unfinished(Catalog.open(str(made.catalog))) is None:  # it died before its plan, or after its end
            assert died
            if ask(made.catalog, f"SELECT 1 FROM sources WHERE {where[1]}"):
                assert main(["purge", "--catalog", str(made.catalog), *where]) == 0
            check(made, values, samples, gone)
            continue
        assert verify(Catalog.open(str(made.catalog)))  # it says that a purge was not finished
        killed(made, dice.randint(1, changes))
        if number % 2 and unfinished(Catalog.open(str(made.catalog))) is not None:  # any run finishes it first
            run_recipes(["ingest"], str(made.catalog), [str(made.films)], made.recipes, (), INLINE)
        elif unfinished(Catalog.open(str(made.catalog))) is not None:  # so does the same command
            assert main(["purge", "--catalog", str(made.catalog), *(where if number % 4 else ())]) == 0
        check(made, values, samples, gone)
