"""The way to a server: connections, redirects, certificates and proxies."""

import importlib.util
import threading
from urllib.parse import urlsplit

import psutil
import pytest

from stages.base import SettingsError
from stages.captions.http_client import HttpClient, NoReply
from stages.captions.stage import Caption
from tests import caption_server as faults
from tests.caption_server import CaptionServer
from tests.stages.captions.made import rows_of, run, served, unit_of

BODY = b'{"messages": [{"content": [{"text": "a question"}]}]}'


def test_requests_that_are_given_up_leave_no_connection_behind():
    with CaptionServer(lambda prompt, attempt: faults.HANG) as server, HttpClient(server.url, {}) as client:

        def ask():
            for seconds in (0.001, 0.003, 0.01, 0.03) * 4:
                with pytest.raises(NoReply, match="no whole reply within"):
                    client.request("POST", "/chat/completions", seconds, BODY)

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        port = urlsplit(server.url).port
        assert not [one for one in psutil.Process().net_connections() if one.raddr and one.raddr.port == port]


def test_a_closed_client_gives_up_what_is_under_way_and_takes_no_more():
    with CaptionServer(lambda prompt, attempt: faults.HANG) as server:
        client = HttpClient(server.url, {})
        reasons = []

        def ask():
            with pytest.raises(NoReply) as caught:
                client.request("POST", "/chat/completions", 100_000, BODY)
            reasons.append(str(caught.value))

        asking = threading.Thread(target=ask)
        asking.start()
        server.wait_for_requests(1)
        client.close()
        asking.join()
        ask()
        client.close()
    assert reasons == ["the run was stopped"] * 2


def test_a_reply_that_is_too_long_is_not_read_to_its_end():
    with (
        CaptionServer() as server,
        HttpClient(server.url, {}, max_reply=10) as client,
        pytest.raises(NoReply, match="more than 10 bytes"),
    ):
        client.request("POST", "/chat/completions", 100, BODY)


def test_a_missing_http_client_is_named_with_what_installs_it(monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "httpx" else there(name))
    with pytest.raises(SettingsError, match=r"httpx: pip install 'clipmill\[caption\]'"):
        Caption(served("http://127.0.0.1/v1")).check()


def test_a_redirect_is_named_and_not_followed():
    with CaptionServer(moved="http://elsewhere.invalid/v1/models") as server:
        with pytest.raises(SettingsError, match=r"sends elsewhere \(http://elsewhere.invalid/v1/models\)"):
            Caption(served(server.url)).check()
        assert server.paths == ["/v1/models"]


def test_what_speaks_no_tls_is_asked_nothing_over_it():
    with CaptionServer() as server:
        url = server.url.replace("http://", "https://")
        with pytest.raises(SettingsError, match="SSL") as caught:
            Caption(served(url)).check()
        assert "\n" not in str(caught.value)
        assert not server.paths


def test_the_proxy_of_the_environment_is_used(monkeypatch):
    with CaptionServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        url = "http://captions.invalid/v1"
        stage = Caption(served(url))
        assert rows_of(run(stage, [unit_of([1], stage)]))[1]["status"] == "done"
        assert proxy.paths == [f"{url}/models", f"{url}/chat/completions"]
