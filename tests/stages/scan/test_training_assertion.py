"""The training assertion of C2PA, read from films that are signed here; the child does the reading."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from stages.decode.child import Child
from stages.scan.training_assertion import read_assertion
from tests.hostile import moving_square, write_video
from tests.signed_films import sign, training


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("films") / "film.mp4", moving_square(24, 64, 64))


@pytest.fixture(scope="module")
def read():
    with Child(imports=("stages.scan.training_assertion",)) as child:
        yield lambda path: read_assertion(child, str(path))


@pytest.mark.parametrize(
    ("uses", "value", "entry"),
    [
        ({"ai_generative_training": "notAllowed", "ai_training": "allowed"}, "not allowed", "ai_generative_training"),
        ({"ai_training": "constrained"}, "constrained", "ai_training"),
        ({"ai_generative_training": "allowed"}, "allowed", "ai_generative_training"),
    ],
)
def test_what_a_signed_film_says_of_training_is_read(film, tmp_path, read, uses, value, entry):
    found = read(sign(film, tmp_path / "signed.mp4", training(**uses)))
    assert found["optout_c2pa"] == value
    assert found["optout_c2pa_from"].startswith(f"cawg.training-mining ({entry}) in manifest urn:c2pa:")
    assert found["optout_c2pa_from"].endswith("signed by Tests of clipmill, valid")
    assert found["optout_c2pa_checked"].tzinfo is not None


def test_the_older_label_counts_too(film, tmp_path, read):
    signed = sign(film, tmp_path / "signed.mp4", training("c2pa.training-mining", ai_training="notAllowed"))
    assert read(signed)["optout_c2pa"] == "not allowed"


def test_mining_and_inference_say_nothing_of_training(film, tmp_path, read):
    signed = sign(film, tmp_path / "signed.mp4", training(data_mining="notAllowed", ai_inference="notAllowed"))
    found = read(signed)
    assert found["optout_c2pa"] == "none found"
    assert found["optout_c2pa_from"].startswith("manifest urn:c2pa:")


def test_a_film_without_a_manifest_was_checked_and_none_was_found(film, read):
    found = read(film)
    assert (found["optout_c2pa"], found["optout_c2pa_from"]) == ("none found", "the file")


def test_a_changed_film_keeps_its_opt_out_and_is_called_invalid(film, tmp_path, read):
    signed = sign(film, tmp_path / "signed.mp4", training(ai_training="notAllowed"))
    content = bytearray(signed.read_bytes())
    content[content.index(b"mdat") + 40] ^= 1
    signed.write_bytes(content)
    found = read(signed)
    assert found["optout_c2pa"] == "not allowed"
    assert found["optout_c2pa_from"].endswith("invalid")


def test_a_format_that_can_not_be_read_is_not_checked(tmp_path, read):
    film = write_video(tmp_path / "film.mkv", moving_square(24, 64, 64), container="matroska")
    found = read(film)
    assert found["optout_c2pa"] is None and found["optout_c2pa_checked"] is None
    assert found["optout_c2pa_from"].startswith("not read: ")


def test_a_manifest_elsewhere_is_never_fetched(film, tmp_path, read):
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/manifest.c2pa"
        signed = sign(film, tmp_path / "signed.mp4", training(ai_training="notAllowed"), remote=url)
        assert url.encode() in signed.read_bytes()
        found = read(signed)
        server.shutdown()
    assert asked == []
    assert found["optout_c2pa"] is None and found["optout_c2pa_from"].startswith("not read: ")


def test_damage_costs_no_more_than_the_reading(film, tmp_path, read):
    signed = sign(film, tmp_path / "signed.mp4", training(ai_training="notAllowed"))
    whole = signed.read_bytes()
    box = whole.index(b"jumb")
    for at in range(box, box + 400, 16):
        signed.write_bytes(whole[:at] + bytes(64) + whole[at + 64 :])
        assert set(read(signed)) == {"optout_c2pa", "optout_c2pa_from", "optout_c2pa_checked"}
    signed.write_bytes(whole)
    assert read(signed)["optout_c2pa"] == "not allowed"
