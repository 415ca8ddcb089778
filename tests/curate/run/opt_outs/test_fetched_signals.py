"""Signals of a folder of fetched files: robots.txt, TDMRep, AIPREF and RSL, with where and when they were read."""

import datetime
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.catalog.rights import ANSWERS
from curate.errors import UserError
from curate.recipe.opt_out_settings import OptOutSettings
from curate.run.opt_outs.opt_outs import COLUMNS, FetchedSignals

FILM = "https://example.com/films/a.mp4"
NAMES = ("robots.txt", "tdmrep.json", "rsl.xml", "headers.jsonl", "fetched.json")
FETCHED = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)


@pytest.fixture
def signals(tmp_path):
    """Writes files of example.com, fetched at FETCHED; gives the columns of a URL, or one signal of it."""

    def read(files, url=FILM, agents=("*",), signal=None):
        for name, content in files.items():
            path = tmp_path / "signals" / "example.com" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content))
            os.utime(path, (FETCHED.timestamp(),) * 2)
        found = FetchedSignals(OptOutSettings(folder=str(tmp_path / "signals"), agents=agents))
        row = found.row({"uri": url})
        return row if signal is None else row[f"optout_{signal}"]

    return read


def rsl(*contents):
    return f'<rsl xmlns="https://rslstandard.org/rsl">{"".join(contents)}</rsl>'


def content(licence, url="/", attributes=""):
    return f'<content url="{url}" {attributes}><license>{licence}</license></content>'


TRAIN, NO_TRAIN = '<permits type="usage">ai-train</permits>', '<prohibits type="usage">ai-train</prohibits>'


def test_a_domain_without_a_folder_is_left_alone(signals):
    assert signals({"robots.txt": ""}, "https://www.example.com/a.mp4") == {}
    assert signals({"robots.txt": ""}, "/films/a.mp4") == {}


def test_a_file_that_was_not_fetched_is_not_checked_and_an_empty_one_was(signals):
    row = signals({"robots.txt": ""})
    assert row["optout_robots"] == row["optout_aipref"] == row["optout_rsl"] == "none found"
    assert row["optout_robots_from"] == "example.com/robots.txt"
    assert row["optout_robots_checked"] == FETCHED
    assert row["optout_tdmrep"] is row["optout_tdmrep_from"] is row["optout_tdmrep_checked"] is None


ROBOTS = """\
User-agent: GPTBot
User-agent: CCBot
Disallow: /films/*.mp4$
Allow: /films/free

User-agent: *
Disallow: /private/
"""


@pytest.mark.parametrize(
    ("agents", "url", "value", "read_from"),
    [
        (("*",), FILM, "allowed", "example.com/robots.txt"),
        (("GPTBot",), FILM, "not allowed", "example.com/robots.txt (GPTBot)"),
        (("clipbot", "gptbot"), FILM, "not allowed", "example.com/robots.txt (gptbot)"),
        (("GPTBot",), "https://example.com/films/a.mp4?x", "allowed", "example.com/robots.txt"),
        (("GPTBot",), "https://example.com/films/free.mp4", "not allowed", "example.com/robots.txt (GPTBot)"),
        (("clipbot",), "https://example.com/private/a.mp4", "not allowed", "example.com/robots.txt (clipbot)"),
        (("GPTBot",), "https://EXAMPLE.com:443/private/a.webm", "allowed", "example.com/robots.txt"),
    ],
)
def test_robots_are_read_for_the_stated_agents_with_wildcards(signals, agents, url, value, read_from):
    row = signals({"robots.txt": ROBOTS}, url, agents)
    assert (row["optout_robots"], row["optout_robots_from"]) == (value, read_from)


@pytest.mark.parametrize(
    ("rules", "value"),
    [
        ([{"location": "/", "tdm-reservation": 1}], "not allowed"),
        ([{"location": "/", "tdm-reservation": 1, "tdm-policy": "https://example.com/p.json"}], "constrained"),
        ([{"location": "/", "tdm-reservation": 1}, {"location": "/films/*.mp4", "tdm-reservation": 0}], "allowed"),
        ([{"location": "/books/", "tdm-reservation": 1}], "none found"),
        ([{"location": "/", "tdm-reservation": 7}, "noise"], "none found"),
        ([], "none found"),
    ],
)
def test_the_most_specific_rule_of_tdmrep_counts(signals, rules, value):
    assert signals({".well-known/tdmrep.json": rules}, signal="tdmrep") == value
    assert signals({"tdmrep.json": rules}, signal="tdmrep") == value


def headers(**fields):
    row = {"url": FILM, "at": "2026-02-01T00:00:00Z", "headers": {k.replace("_", "-"): v for k, v in fields.items()}}
    return json.dumps(row) + "\n"


def test_headers_of_the_film_go_before_the_file(signals):
    files = {"tdmrep.json": [{"location": "/", "tdm-reservation": 0}], "headers.jsonl": headers(TDM_Reservation="1")}
    row = signals(files)
    assert (row["optout_tdmrep"], row["optout_tdmrep_from"]) == (
        "not allowed",
        "example.com/headers.jsonl (tdm-reservation: 1)",
    )
    assert row["optout_tdmrep_checked"] == datetime.datetime(2026, 2, 1, tzinfo=datetime.UTC)
    assert signals(files, "https://example.com/films/b.mp4", signal="tdmrep") == "allowed"
    policy = {"tdm-reservation": 1, "tdm-policy": "https://example.com/p"}
    assert signals({"headers.jsonl": headers(**policy)}, signal="tdmrep") == "constrained"


USAGE = """\
User-Agent: *
Allow: /
Disallow: /never/
Content-Usage: / train-ai=n
Content-Usage: /free/ train-ai=y

User-Agent: ExampleBot
Allow: /
Content-Usage: / train-ai=y, search=n
"""


@pytest.mark.parametrize(
    ("path", "agents", "value"),
    [
        ("/test", ("*",), "not allowed"),
        ("/free/test", ("*",), "allowed"),
        ("/never/test", ("*",), "none found"),
        ("/test", ("ExampleBot",), "allowed"),
        ("/test", ("ExampleBot", "OtherBot"), "not allowed"),
    ],
)
def test_content_usage_of_robots_is_that_of_the_agents_group_and_longest_path(signals, path, agents, value):
    assert signals({"robots.txt": USAGE}, f"https://example.com{path}", agents, signal="aipref") == value


@pytest.mark.parametrize(
    ("usage", "value"),
    [
        ("train-ai=n", "not allowed"),
        ("search=y, train-ai=y;x=1", "allowed"),
        ("train-ai=y, train-ai=n", "not allowed"),
        ("search=n", "none found"),
        ("train-ai", "none found"),
        (["search=n", "train-ai=n"], "not allowed"),
    ],
)
def test_content_usage_of_headers(signals, usage, value):
    assert signals({"headers.jsonl": headers(Content_Usage=usage)}, signal="aipref") == value


def test_the_strictest_of_header_and_robots_counts(signals):
    files = {
        "robots.txt": "User-agent: *\nContent-Usage: train-ai=y\n",
        "headers.jsonl": headers(content_usage="train-ai=n"),
    }
    assert signals(files, signal="aipref") == "not allowed"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (rsl(content(TRAIN)), "allowed"),
        (rsl(content(NO_TRAIN)), "not allowed"),
        (rsl(content('<permits type="usage">search</permits>')), "not allowed"),
        (rsl(content(f'{TRAIN}<payment type="crawl"><amount currency="USD">1</amount></payment>')), "constrained"),
        (rsl(content(f'{TRAIN}<payment type="free"/>')), "allowed"),
        (rsl(content(f'{TRAIN}<permits type="geo">EU</permits>')), "constrained"),
        (rsl(content(TRAIN, attributes='server="https://licences.example"')), "constrained"),
        (rsl(content(NO_TRAIN), content(TRAIN, "/films/*.mp4$")), "allowed"),
        (rsl(content(NO_TRAIN, "https://example.com/films/")), "not allowed"),
        (rsl(content(NO_TRAIN, "https://other.org/films/")), "none found"),
        (rsl(content(NO_TRAIN, "/books/")), "none found"),
        ("", "none found"),
    ],
)
def test_rsl_licences(signals, text, value):
    assert signals({"rsl.xml": text}, signal="rsl") == value


def test_the_licence_that_robots_names_is_read_and_one_that_was_not_fetched_binds(signals):
    files = {"robots.txt": "License: https://example.com/terms/l.xml\n"}
    row = signals(files)
    assert row["optout_rsl"] == "constrained"
    assert row["optout_rsl_from"] == "example.com/robots.txt (License: https://example.com/terms/l.xml, not fetched)"
    row = signals(files | {"terms/l.xml": rsl(content(NO_TRAIN))})
    assert (row["optout_rsl"], row["optout_rsl_from"]) == ("not allowed", "example.com/terms/l.xml (/)")


def test_fetched_json_says_when_and_what_the_server_did_not_have(signals):
    files = {
        "robots.txt": "User-agent: *\nDisallow: /\n",
        "fetched.json": {
            "robots.txt": {"at": "2025-12-24T08:00:00+01:00"},
            "tdmrep.json": {"at": "2025-12-25", "status": 404},
            "rsl.xml": {"at": "2025-12-26", "status": 503},
        },
    }
    row = signals(files)
    assert row["optout_robots_checked"] == datetime.datetime(2025, 12, 24, 7, tzinfo=datetime.UTC)
    assert row["optout_tdmrep"] == "none found"
    assert row["optout_tdmrep_checked"] == datetime.datetime(2025, 12, 25, tzinfo=datetime.UTC)
    assert row["optout_rsl_from"] == "example.com/robots.txt"  # an error of the server says nothing


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tdmrep.json", "<html>"),
        ("tdmrep.json", "{}"),
        ("tdmrep.json", "[" * 100_000),
        ("rsl.xml", "<rsl"),
        ("rsl.xml", "<html/>"),
        ("rsl.xml", '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><rsl>&e;</rsl>'),
        ("headers.jsonl", "nonsense"),
        ("fetched.json", '["robots.txt"]'),
    ],
)
def test_what_can_not_be_read_is_told_and_counts_as_not_checked(signals, capsys, name, text):
    row = signals({name: text})
    assert set(row.values()) == {None}
    said = capsys.readouterr().err
    assert said.startswith(f"opt_outs: example.com/{name}") and said.endswith("it counts as not checked\n")
    assert said.count("\n") == 1


@given(
    st.text(max_size=400), st.sampled_from(["robots.txt", "tdmrep.json", "rsl.xml", "headers.jsonl", "fetched.json"])
)
def test_no_file_of_a_site_breaks_the_reading(tmp_path_factory, text, name):
    folder = tmp_path_factory.mktemp("signals")
    (folder / "example.com").mkdir()
    (folder / "example.com" / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    row = FetchedSignals(OptOutSettings(folder=str(folder))).row({"uri": FILM})
    assert set(row) == set(COLUMNS)
    assert {row[f"optout_{name}"] for name in ("robots", "tdmrep", "aipref", "rsl")} <= {None, *ANSWERS}


def test_the_folder_must_be_there(tmp_path):
    with pytest.raises(UserError, match="can't read the folder"):
        FetchedSignals(OptOutSettings(folder=str(tmp_path / "nowhere")))
