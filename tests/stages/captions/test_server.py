"""Captions from a server that fails in every way: each clip ends captioned, or failed with its reason."""

import os
import socket
import threading
import time

import pytest

from stages.base import Context, SettingsError
from stages.captions.async_batch import AHEAD, stream_concurrently
from stages.captions.server import STOP_AFTER
from stages.captions.stage import Caption
from tests import caption_server as faults
from tests.caption_server import KEY, MODEL, OK, CaptionServer
from tests.stages.captions.made import StoppedClock, asked_about, rows_of, run, served, unit_of

ONCE = [
    OK,
    faults.HANG,
    faults.DRIP,
    faults.DROP,
    faults.CUT,
    faults.GARBAGE,
    "429 retry-after=0.05",
    "500",
    "503",
    faults.TRUNCATED,
    faults.REFUSAL,
]
NO_RETRY = {faults.TRUNCATED, faults.REFUSAL, OK}
FOREVER = {
    faults.HANG: "after 3 tries: no whole reply within 0.2 s",
    faults.DRIP: "after 3 tries: no whole reply within 0.2 s",
    faults.DROP: "after 3 tries: the server closed the connection without a reply",
    faults.CUT: "after 3 tries: the reply broke off",
    faults.GARBAGE: "after 3 tries: a reply that is no chat completion",
    "429": "after 3 tries: 429 the script says 429",
    "500": "after 3 tries: 500 the script says 500",
    "400": "refuses: 400 the script says 400",
    "302 location=http://elsewhere.invalid/v1": "refuses: 302 the script says 302",
    faults.EMPTY: "has no text",
}


def test_a_fault_that_passes_costs_a_retry_and_no_clip():
    def script(prompt, attempt):
        return OK if attempt else ONCE[asked_about(prompt)]

    with CaptionServer(script) as server:
        stage = Caption(served(server.url, server={"timeout_seconds": 2, "concurrency": 32}))
        rows = rows_of(run(stage, [unit_of([n], stage, f"u{n}") for n in range(len(ONCE))]))
        prompts = server.prompts
    assert set(rows) == set(range(len(ONCE)))
    for number, fault in enumerate(ONCE):
        assert rows[number]["status"] == "done", (fault, rows[number])
        assert prompts.count(f"Describe clip {number:032x}.") == (1 if fault in NO_RETRY else 2), fault
    assert rows[ONCE.index(faults.TRUNCATED)]["caption_truncated"] is True
    assert rows[ONCE.index(faults.REFUSAL)]["caption_refusal"] == "i'm sorry"
    assert rows[0]["caption_truncated"] is False
    assert rows[0]["caption_refusal"] is rows[0]["caption_boilerplate"] is None
    assert (rows[0]["captions_model"], rows[0]["captions_revision"]) == (MODEL, f"{MODEL}-0.1")


def test_a_fault_that_stays_costs_its_clip_with_the_reason():
    with CaptionServer(lambda prompt, attempt: list(FOREVER)[asked_about(prompt)]) as server:
        stage = Caption(served(server.url, server={"timeout_seconds": 0.2, "tries": 3, "concurrency": 32}))
        rows = rows_of(run(stage, [unit_of([n], stage, f"u{n}") for n in range(len(FOREVER))]))
    assert set(rows) == set(range(len(FOREVER)))
    assert {row["status"] for row in rows.values()} == {"failed"}
    for number, (fault, reason) in enumerate(FOREVER.items()):
        assert reason in rows[number]["reason"], fault


def test_a_clip_is_given_up_at_its_deadline_and_a_pause_longer_than_that_is_not_waited_for():
    for fault, reason in ((faults.HANG, "no whole reply within"), ("429 retry-after=3600", "(it asks to wait 3600 s")):
        with CaptionServer(lambda prompt, attempt, fault=fault: fault) as server:
            limits = {"timeout_seconds": 0.2, "deadline_seconds": 0.5, "tries": 100}
            stage = Caption(served(server.url, server=limits))
            rows = rows_of(run(stage, [unit_of([0], stage)]))
            assert len(server.seen) < 100
        assert rows[0]["status"] == "failed" and reason in rows[0]["reason"]


def test_a_slow_clip_delays_no_other_and_parts_leave_in_their_order():
    others_left = threading.Event()

    def script(prompt, attempt):
        if asked_about(prompt) == 0:
            others_left.wait()
        return OK

    with CaptionServer(script) as server:
        stage = Caption(served(server.url))
        units = [unit_of([0], stage, "slow", part=0, last=False), unit_of([1], stage, "slow", part=1)]
        units += [unit_of([n, n + 1], stage, f"u{n}") for n in range(2, 30, 2)]
        units.append(unit_of([], stage, "empty"))
        units.append(unit_of([50], stage, "broken").failed("it was broken before"))
        stage.setup()
        left = []
        for unit in stage.stream(iter(units)):
            left.append(unit)
            if len(left) == len(units) - 2:
                others_left.set()
        stage.close()
    order = [(unit.unit_id, unit.part) for unit in left]
    assert order[-2:] == [("slow", 0), ("slow", 1)]
    assert sorted(order) == sorted((unit.unit_id, unit.part) for unit in units)
    rows = rows_of(left)
    assert set(rows) == set(range(30))
    assert all(f"{number:032x}" in row["caption"] for number, row in rows.items())


def test_as_many_clips_are_asked_about_at_a_time_as_said_and_no_more():
    three = threading.Barrier(3)
    with CaptionServer(lambda prompt, attempt: (three.wait() and OK) or OK) as server:
        stage = Caption(served(server.url, server={"concurrency": 3}))
        taken = 0

        def units():
            nonlocal taken
            for number in range(24):
                taken += 1
                yield unit_of([number], stage, f"u{number}")

        stage.setup()
        for done, _ in enumerate(stage.stream(units()), 1):
            assert taken <= done + AHEAD * 3  # memory is bounded, too
        stage.close()
        assert taken == 24
        assert server.most_at_once == 3


def test_requests_keep_to_the_rate_limit():
    with CaptionServer() as server:
        stage = Caption(served(server.url, server={"requests_per_minute": 1200}))
        began = time.monotonic()
        rows = rows_of(run(stage, [unit_of(range(12), stage)]))
        assert {row["status"] for row in rows.values()} == {"done"}
        assert max(one.began for one in server.seen) - began >= 11 * 0.05


def test_a_wait_for_a_turn_does_not_count_against_a_clip_s_deadline():
    clock = StoppedClock()
    with CaptionServer() as server:
        limits = {"requests_per_minute": 1, "deadline_seconds": 30, "concurrency": 1}
        stage = Caption(served(server.url, server=limits), clock)
        rows = rows_of(run(stage, [unit_of(range(3), stage)]))
    assert {row["status"] for row in rows.values()} == {"done"}
    assert clock.now() == 120  # the second and the third clip each waited longer than the deadline


def test_a_server_that_asks_for_a_pause_gets_it_from_all_clips():
    clock, times = StoppedClock(), []

    def script(prompt, attempt):
        times.append(clock.now())
        return "429 retry-after=30" if asked_about(prompt) == 0 else OK

    with CaptionServer(script) as server:
        stage = Caption(served(server.url, server={"concurrency": 1, "tries": 1}), clock)
        rows = rows_of(run(stage, [unit_of(range(3), stage)]))
    assert [rows[number]["status"] for number in range(3)] == ["failed", "done", "done"]
    assert times == [0, 30, 30]


def test_frames_prompt_seed_and_settings_are_what_the_server_is_sent():
    with CaptionServer() as server:
        extra = {"server": {"extra_body": {"top_p": 0.5}}, "frames": {"positions": [0.1, 0.9], "long_side": 32}}
        stage = Caption(
            served(server.url, prompts="{duration} s: describe", seed=7, max_tokens=33, temperature=0.25, **extra)
        )
        run(stage, [unit_of([1], stage)])
        body = server.seen[0].body
    assert {k: v for k, v in body.items() if k != "messages"} == {
        "model": MODEL, "max_tokens": 33, "temperature": 0.25, "seed": 7, "top_p": 0.5,
    }  # fmt: skip
    parts = body["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "image_url", "text"]
    assert all(part["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/") for part in parts[:2])
    assert parts[2]["text"] == "2.5 s: describe"


def test_several_captions_of_a_clip_and_the_manifest_s_first():
    prompts = {"short": "{clip_id} in five words", "long": "{clip_id} at length"}
    with CaptionServer(lambda prompt, attempt: "400" if "5 at length" in prompt else OK) as server:
        stage = Caption(
            served(server.url, source=["manifest", "server"], prompts=prompts, manifest={"column": {"short": "alt"}})
        )
        units = [unit_of([1], stage, "a", manifest={"alt": "A dog."}), unit_of([4, 5], stage, "b")]
        rows = rows_of(run(stage, units))
        assert len(server.seen) == 5  # one of the six was in the manifest
    assert rows[1]["caption_short"] == "A dog."
    assert rows[1]["caption_short_source"] == "manifest"
    assert rows[1]["caption_long_source"] == "server"
    assert "at length" in rows[4]["caption_long"]
    assert "five words" in rows[4]["caption_short"]
    assert rows[4]["caption_short_prompt"] != rows[4]["caption_long_prompt"]
    assert rows[5]["status"] == "failed"
    assert rows[5]["reason"].startswith("the server refuses: 400") and rows[5]["reason"].endswith("(caption 'long')")
    assert set(rows[4]) == {"clip_id", "source_id", "status", "reason"} | set(stage.columns()["captions"])


def test_an_answer_is_never_asked_for_twice_not_even_of_a_failed_clip(tmp_path):
    prompts = {"short": "{clip_id} short", "long": "{clip_id} long"}
    with CaptionServer(lambda prompt, attempt: "400" if prompt.endswith("long") and not attempt else OK) as server:
        for status in ("failed", "done", "done"):
            stage = Caption(served(server.url, prompts=prompts))
            rows = rows_of(run(stage, [unit_of([1], stage)], tmp_path))
            assert rows[1]["status"] == status
        assert len(server.answered) == len(set(server.answered)) == 2
        stage.committed([rows[1]["clip_id"], "0" * 32])
        other = Caption(served(server.url, prompts=prompts, seed=1))
        run(other, [unit_of([1], other)], tmp_path)
        assert len(server.answered) == 4  # under other settings it is another question
    assert [path.name for path in tmp_path.rglob("*.json")] == [f"{1:032x}.json"]


def test_answers_that_can_not_be_kept_stop_the_run(tmp_path):
    """Going on would pay for what a kill then loses."""
    with CaptionServer() as server:
        stage = Caption(served(server.url, server={"concurrency": 2}))
        stage.prepare(Context(str(tmp_path)))
        stage.setup()
        (tmp_path / "_answers" / "captions").rmdir()
        with pytest.raises(SettingsError, match=r"answers can't be kept .*_answers/captions.*No such file"):
            list(stage.stream(unit_of([n], stage, f"u{n}") for n in range(20)))
        stage.close()
        assert len(server.seen) <= 4
        (tmp_path / "_answers" / "captions").write_text("a file")
        with pytest.raises(SettingsError, match="answers can't be kept"):
            stage.setup()


def test_a_server_that_refuses_everyone_stops_the_run_in_one_line():
    with CaptionServer(lambda prompt, attempt: "404") as server:
        stage = Caption(served(server.url, server={"concurrency": 1}))
        stopped = rf"{STOP_AFTER} clips in a row came to nothing \(404 the script says 404\)"
        with pytest.raises(SettingsError, match=stopped):
            run(stage, [unit_of([n], stage, f"u{n}") for n in range(3 * STOP_AFTER)])
        assert len(server.seen) <= STOP_AFTER + 1


def test_refusals_with_captions_in_between_stop_nothing():
    def script(prompt, attempt):
        return "400" if asked_about(prompt) % STOP_AFTER else OK

    with CaptionServer(script) as server:
        stage = Caption(served(server.url, server={"concurrency": 1}))
        rows = rows_of(run(stage, [unit_of([n], stage, f"u{n}") for n in range(3 * STOP_AFTER)]))
    assert [row["status"] for row in rows.values()].count("done") == 3


def test_a_server_that_goes_away_stops_the_run():
    with CaptionServer() as server:
        stage = Caption(served(server.url, server={"concurrency": 2, "tries": 2}))
        stage.setup()
    with pytest.raises(SettingsError, match=r"no reply: nothing answers at 127.0.0.1"):
        list(stage.stream(unit_of([n], stage, f"u{n}") for n in range(3 * STOP_AFTER)))
    stage.close()


def test_a_stopped_run_keeps_what_is_under_way_and_begins_nothing_more(tmp_path):
    release = threading.Event()

    def script(prompt, attempt):
        if asked_about(prompt):
            release.wait()
        return OK

    with CaptionServer(script) as server:
        stage = Caption(served(server.url, server={"concurrency": 4}))
        stage.prepare(Context(str(tmp_path)))
        stage.setup()
        running = stage.stream(unit_of([n], stage, f"u{n}") for n in range(40))
        next(running)
        server.wait_for_requests(5)
        stopping = threading.Thread(target=running.close)
        stopping.start()
        release.set()
        stopping.join()
        stage.close()
        assert len(list(tmp_path.rglob("*.json"))) == len(server.answered) >= 5
        assert len(server.seen) <= 1 + (1 + AHEAD) * 4


def test_a_stopped_run_does_not_wait_for_a_server_that_hangs():
    with CaptionServer(lambda prompt, attempt: faults.HANG if asked_about(prompt) else OK) as server:
        stage = Caption(served(server.url, server={"concurrency": 4, "timeout_seconds": 100_000}))
        stage.setup()
        running = stream_concurrently(stage, (unit_of([n], stage, f"u{n}") for n in range(40)), 4, grace_s=0.1)
        next(running)
        server.wait_for_requests(5)
        running.close()
        assert len(server.seen) == 5
        assert not [one for one in threading.enumerate() if one.name.startswith("caption")]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"base_url": f"http://127.0.0.1:{free_port()}/v1"}, "nothing answers at 127.0.0.1:.*start it, or correct"),
        ({"base_url": "http://no-such-host.invalid/v1"}, "no-such-host.invalid:80 is not known"),
        ({"base_url": "http://no..host/v1"}, "server http://no..host/v1: .*or correct"),
        ({"model": "stand-in-vlm"}, "has no model 'stand-in-vlm'; did you mean 'stand-in-vl'"),
        ({"api_key_env": None}, "refuses a request without a key \\(401 .*name the variable"),
        ({"api_key_env": "CLIPMILL_TEST_WRONG"}, "refuses the key in CLIPMILL_TEST_WRONG"),
        ({"api_key_env": "CLIPMILL_TEST_NONE"}, "CLIPMILL_TEST_NONE is not set"),
        ({"api_key_env": "CLIPMILL_TEST_ODD"}, "CLIPMILL_TEST_ODD holds characters that no key has"),
    ],
)
def test_a_server_that_can_not_work_is_one_line_before_any_clip(monkeypatch, change, why):
    monkeypatch.setitem(os.environ, "CLIPMILL_TEST_WRONG", "another key")
    monkeypatch.setitem(os.environ, "CLIPMILL_TEST_ODD", "a key\nof twö lines")
    monkeypatch.setitem(os.environ, "CLIPMILL_TEST_KEY", KEY)
    with CaptionServer(key=KEY) as server:
        stage = Caption(served(server.url, server={"api_key_env": "CLIPMILL_TEST_KEY"}))
        stage.check()
        with pytest.raises(SettingsError, match=why) as caught:
            Caption(served(server.url, server={"api_key_env": "CLIPMILL_TEST_KEY"} | change)).check()
        assert "\n" not in str(caught.value)
        assert KEY not in str(caught.value)
        assert "another key" not in str(caught.value)
        assert not server.seen


def test_a_prompt_s_unknown_field_stops_the_run_and_an_empty_one_costs_its_clip():
    with CaptionServer() as server:
        stage = Caption(served(server.url, prompts="{clip_id}, {capton}"))
        with pytest.raises(SettingsError, match=r"no clip has a column 'capton'; did you mean \{caption\}"):
            run(stage, [unit_of([1], stage, manifest={"caption": "a dog"})])
        stage = Caption(served(server.url, prompts="{clip_id}, {caption}"))
        units = [
            unit_of([1], stage, "a", manifest={"caption": "a dog"}),
            unit_of([2], stage, "b", manifest={"caption": None}),
        ]
        rows = rows_of(run(stage, units))
        assert server.prompts == [f"{1:032x}, a dog"]
    assert "{caption} has no value for this clip" in rows[2]["reason"]


def test_a_clip_without_its_frames_says_why():
    with CaptionServer() as server:
        stage = Caption(served(server.url))
        unit = unit_of([1, 2], stage)
        unit.clips[1].pixels = {}
        unit.clips[1].lost = "its file is gone"
        rows = rows_of(run(stage, [unit]))
    assert rows[1]["status"] == "done"
    assert rows[2]["reason"] == "its file is gone"
