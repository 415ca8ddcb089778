"""Gates: the same verdict in a run and in SQL, and clear words for a wrong one."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate, GateSettings, Judge, check_gates
from curate.catalog.ledger import Ledger
from curate.catalog.views import connect
from curate.errors import UserError
from curate.recipe.gate_stage import GateStage
from stages.frames import FrameRequest
from stages.unit import Unit
from tests.catalog_rows import commit_rows
from tests.stages.units import clip_of

COLUMNS = {"motion": "double", "luma_mean": "double", "caption": "string", "faces": "int32"}
GATES = [
    Gate(name="moving", where="motion >= 0.25 -- the field's number"),
    Gate(name="it's bright", where="luma_mean BETWEEN 10 AND 245", unknown="drop"),
    Gate(name="cut.min_seconds", where="media = 'image' OR end_s - start_s >= 2"),
    Gate(name="numeric caption", where="caption::INT > 3"),
    Gate(name="beauty", where="aesthetic > 4.5"),  # a signal that was never measured
    Gate(name="faces", where="Faces > 1 AND clips.faces < 9", unknown="drop"),
]


def numbers(low, high):
    return st.none() | st.floats(low, high) | st.sampled_from([0.25, 10.0, 245.0, 2.0, float("nan")])


CLIPS = st.fixed_dictionaries(
    {
        "motion": numbers(-1, 2),
        "luma_mean": numbers(0, 255),
        "caption": st.none() | st.sampled_from(["3", "4", "four", ""]),
        "faces": st.none() | st.integers(0, 10),
        "media": st.sampled_from(["video", "image"]),
        "start_s": st.just(0.0),
        "end_s": st.floats(0, 9),
    }
)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(CLIPS, min_size=1, max_size=30))
def test_a_run_and_the_view_judge_alike(tmp_path_factory, clips):
    clips = [clip | {"clip_id": f"{i:03d}", "source_id": "s"} for i, clip in enumerate(clips)]
    catalog = Catalog.open_or_create(str(tmp_path_factory.mktemp("catalog")))
    with Ledger(catalog, "sources", "source_id", "r") as ledger:
        source = {"source_id": "s", "status": "done", "clips": len(clips)}
        commit_rows(ledger, {"sources": [source], "clips": clips}, {"clips": COLUMNS})
        catalog.put_gates("ingest", GATES, "r")
    with connect(catalog) as sql:
        seen = sql.execute(
            "SELECT verdict, dropped_by, failed_gates, unknown_gates FROM clips ORDER BY clip_id"
        ).fetchall()
    judged = Judge(GATES, COLUMNS)(clips)
    assert [tuple(verdict) for verdict in judged] == seen


def test_null_is_unknown_and_never_fails_silently():
    gates = [Gate(name="keep", where="motion > 1"), Gate(name="drop", where="motion > 2", unknown="drop")]
    known, unknown, nan = Judge(gates, COLUMNS)([{"motion": 1.5}, {"motion": None}, {"motion": float("nan")}])
    assert known == ("dropped", "drop", ["drop"], [])
    assert unknown == nan == ("dropped", "drop", ["drop"], ["keep", "drop"])


def test_a_stage_passes_on_only_the_clips_and_pixels_that_are_kept():
    stage = pickle.loads(pickle.dumps(GateStage(GATES[:1], COLUMNS)))
    stage.setup()
    motions = {"still": {"motion": 0.0}, "lively": {"motion": 1.0}, "?": {}}
    picture, request = np.zeros((9, 16, 3), np.uint8), FrameRequest((0.5,), 16)

    def unit():
        with_frames = [clip_of(name, [picture], request, **motions[name]) for name in ("still", "lively")]
        return Unit("u", [*with_frames, clip_of("?", **motions["?"])])

    (found,) = stage(unit())
    assert [clip.clip_id for clip in found.clips if clip.passing] == ["lively", "?"]
    assert [clip.clip_id for clip in found.clips if clip.pixels] == ["lively"]
    assert [clip.row for clip in found.clips] == [clip.row for clip in unit().clips]  # dropped clips keep their scores
    given = unit()
    given.clips[1].passing = False
    (found,) = stage(given)
    assert [clip.clip_id for clip in found.clips if clip.passing] == ["?"]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("motin > 1", 'column "motin" not found.*Candidate bindings: "motion"'),
        ("motion", "gives DOUBLE, not true or false"),
        ("NULL", "not true or false"),
        ("sum(motion) > 1", "aggregates"),
        ("row_number() OVER () > 1", "without a window function"),
        ("(SELECT count(*) FROM read_csv('/etc/passwd')) > 1", "without a subquery"),
        ("EXISTS (FROM 'x.csv')", "without a subquery"),
        ("motion > 1; DROP TABLE clips", "syntax error"),
        ("true), (false", "must be one condition"),
        ("true) FROM clips WHERE (true", "syntax error|one condition"),
        ("true) UNION SELECT (false", "must be one condition"),
        ("motion >", "syntax error"),
        ("/* motion > 1", "unterminated"),
        ("motion > random()", "another answer later"),
        ("now() > TIMESTAMP '2020-01-01'", "another answer later"),
        ("motion > ?", "without a parameter"),
        ("COLUMNS(*) > 1", r"without \*"),
        ("read_text('/etc/passwd') IS NULL", "table function"),
        ("no_such(motion) > 1", "does not exist"),
        ("verdict = 'kept'", "not found"),
        ("len(range(1000000000)) > motion", "calls range, which can make a value of any size"),
        ("list_contains(Generate_Series(1, faces * 1000000000), 7)", "calls generate_series"),
        ("format('{:1000000000}', faces) = ''", "calls format"),
    ],
)
def test_a_wrong_gate_is_one_clear_line(where, said):
    with pytest.raises(UserError, match=said) as caught:
        check_gates([Gate(name="mine", where=where)], COLUMNS)
    assert str(caught.value).startswith("gate 'mine'")
    assert "\n" not in str(caught.value).replace(where, "")


LONG = "replace(replace(replace(replace('0123456789', '1', '{0}'), '2', '{0}'), '3', '{0}'), '4', '{0}')"
SLOW = f"len(string_split({LONG.format('12345' * 15)}, '5')) > motion"

MANY_STEPS = f"len(replace(replace(CAST(motion AS VARCHAR) || '01234', '1', '{'23' * 40}'), '2', '{'5' * 40}')) > 3"


def test_a_gate_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr("curate.catalog.gates.CHECK_SECONDS", 0.01)
    monkeypatch.setattr("curate.catalog.gates.JUDGE_SECONDS", 0.01)
    slow, fast = Gate(name="slow", where=SLOW), Gate(name="fast", where="motion > 1")
    with pytest.raises(UserError, match=r"gate 'slow' .*takes more than 0.01 s for one clip: make it simpler"):
        check_gates([slow], COLUMNS)
    many = Gate(name="many", where=MANY_STEPS)  # a little for each clip, and so many that it can't be done in time
    judge = Judge([fast, many], COLUMNS)
    with pytest.raises(UserError, match=r"the gates 'fast', 'many' take more than 0.01 s"):
        judge([{"motion": float(number)} for number in range(100_000)])
    monkeypatch.undo()
    assert [v.verdict for v in Judge([fast], COLUMNS)([{"motion": 2.0}])] == ["kept"]


def test_right_gates_pass_the_check():
    assert check_gates([g for g in GATES if g.name != "beauty"], COLUMNS) is None
    with pytest.raises(UserError, match="stands twice"):
        check_gates([GATES[0], GATES[0]], COLUMNS)


def test_settings_take_bare_sql_or_a_mapping_and_nothing_else():
    read = TypeAdapter(dict[str, GateSettings]).validate_python
    found = read({"a": "motion > 1", "b": {"where": "motion > 2", "unknown": "drop"}})
    assert (found["a"].where, found["a"].unknown) == ("motion > 1", "keep")
    assert (found["b"].where, found["b"].unknown) == ("motion > 2", "drop")
    for wrong in ({"a": {"wher": "x"}}, {"a": {"where": "x", "unknown": "maybe"}}, {"a": ""}, {"a": 3}):
        with pytest.raises(ValidationError):
            read(wrong)
