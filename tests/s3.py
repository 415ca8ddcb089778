"""A real S3 API over HTTP for tests: moto's server in a process of its own, with one bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator

import pytest

# moto prints the port it was given; port 0 lets the kernel choose a free one.
SERVER = """
import collections, json
from werkzeug.serving import make_server
from moto.server import DomainDispatcherApplication, create_backend_app

moto, fetched = DomainDispatcherApplication(create_backend_app), collections.defaultdict(lambda: [0, 0])

def counting(environ, start_response):  # GET /-fetched: [bytes, requests] of every object that was got so far
    path = environ["PATH_INFO"]
    if path == "/-fetched":
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(fetched).encode()]
    parts = list(moto(environ, start_response))
    if environ["REQUEST_METHOD"] == "GET":
        fetched[path][0] += sum(map(len, parts))
        fetched[path][1] += 1
    return parts

server = make_server("127.0.0.1", 0, counting, threaded=True)
print(server.port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of an S3 API server on the loopback; credentials and endpoint are in the environment."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        port = process.stdout.readline().strip()
        assert port, "moto's server did not start"
        endpoint = f"http://127.0.0.1:{port}"
        with pytest.MonkeyPatch.context() as patch:
            for name in [n for n in os.environ if n.startswith("AWS_")]:
                patch.delenv(name)
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            patch.setenv("AWS_ACCESS_KEY_ID", "testing")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            _wait_for(endpoint)
            yield endpoint
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def fetched(endpoint: str, uri: str) -> tuple[int, int]:
    """(bytes of bodies, requests) that the server has answered so far for an s3:// object."""
    with urllib.request.urlopen(f"{endpoint}/-fetched", timeout=10) as answer:
        size, requests = json.load(answer).get(uri.removeprefix("s3:/"), (0, 0))
    return size, requests


def _wait_for(endpoint: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(endpoint, timeout=2).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError(f"no answer from {endpoint}")


@pytest.fixture
def bucket(s3_server: str) -> str:
    """The URI of a new, empty bucket."""
    import s3fs

    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"
