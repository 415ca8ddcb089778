"""What both engines promise, with stages of the test's own: the same stages, writer, ledger and catalog."""

import threading

import pytest

from curate.engines.inline import InlineEngine
from curate.errors import EngineError, UserError
from stages.base import SettingsError
from tests.curate.engines.made import Later, Refusing, Square, run, units


@pytest.fixture(scope="module", params=["inline", pytest.param("ray", marks=pytest.mark.ray)])
def engine(request):
    if request.param == "inline":
        yield InlineEngine()
        return
    request.getfixturevalue("on_ray")
    from curate.engines.ray_engine import RayEngine

    engine = RayEngine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def mixed(engine, tmp_path_factory):
    """Two hundred units, one of them raises, some are long and leave in parts, one of these fails half-way."""
    folder = tmp_path_factory.mktemp("mixed") / "catalog"
    return run(engine, folder, (Square(), Later()), units(200, raises={7}, parts={3, 11, 12}, raises_late={11}))


def test_every_unit_is_committed_once_with_its_clips(mixed):
    plain = {n: clips for n, clips in mixed.clips.items() if n not in (3, 12)}
    assert {n: [clip["scene"] for clip in clips] for n, clips in plain.items()} == {
        n: [n * n] for n in range(200) if n not in (3, 7, 11, 12)
    }
    assert set(mixed.failures) == set(range(200))


def test_an_exception_fails_its_unit_alone_in_one_line(mixed):
    assert {n: why for n, why in mixed.failures.items() if why is not None} == {
        7: "square: number 7 is not liked",
        11: "square: no fourth part",
    }


def test_the_parts_of_a_unit_are_committed_together_and_pass_every_later_stage(mixed):
    for number in (3, 12):
        assert [clip["scene"] for clip in mixed.clips[number]] == [number**2 + part for part in range(6)]
    assert all(clip["width"] == 7 for clips in mixed.clips.values() for clip in clips)


def test_a_unit_that_fails_after_some_parts_leaves_no_clip(mixed):
    assert 11 not in mixed.clips and 7 not in mixed.clips


def test_the_tally_agrees_with_what_was_committed(mixed):
    total = mixed.total
    assert (total.done, total.failed) == (198, 2)
    assert (total.kept, total.dropped) == (196 + 2 * 6, 0)
    assert dict(total.reasons) == {"square": 2}


@pytest.mark.parametrize(("where", "said"), [("setup", "no such model"), ("call", "the server refuses the key")])
def test_settings_that_a_worker_finds_can_t_work_end_the_run_in_their_own_words(engine, tmp_path, where, said):
    with pytest.raises(SettingsError, match=f"^{said}"):
        run(engine, tmp_path / "catalog", (Square(), Refusing(where), Later()), units(3))


def test_an_error_in_the_listing_ends_the_run_and_keeps_what_was_finished(engine, tmp_path):
    def broken():
        yield from units(5)
        raise UserError("row 6 is no path")

    with pytest.raises((UserError, EngineError), match="row 6"):
        run(engine, tmp_path / "catalog", (Square(),), broken())
    assert set(run(engine, tmp_path / "catalog", (Square(),), []).failures) <= set(range(5))


def test_asked_to_stop_it_keeps_what_is_finished_and_leaves_a_long_unit(engine, tmp_path):
    stop = threading.Event()
    outcome = run(
        engine, tmp_path / "catalog", (Square(),), units(40, slow=0.05), stop, seen=lambda *_: stop.set()
    )  # fmt: skip
    assert 0 < len(outcome.clips) < 40
    assert outcome.total.done == len(outcome.clips)


def test_a_full_disk_fails_no_unit(engine, tmp_path):
    """The writer can't write; the run says so, and the same command goes on later."""
    catalog = tmp_path / "catalog"
    run(engine, catalog, (Square(),), units(3))
    hidden = catalog / "elsewhere"
    (catalog / "clips").rename(hidden)
    (catalog / "clips").symlink_to("/dev/full")
    with pytest.raises((EngineError, UserError, OSError)):
        run(engine, catalog, (Square(),), units(6))
    (catalog / "clips").unlink()
    hidden.rename(catalog / "clips")
    outcome = run(engine, catalog, (Square(),), units(6))
    assert all(why is None for why in outcome.failures.values()) and len(outcome.failures) == 6
