"""Our own VAE goes through large clips in pieces: the numbers of the whole clip, in memory that stays the same."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from models.saved.vae_files import save
from models.settings.vae import sized
from models.vae.causal_vae import CausalVAE
from stages.base import ClipError, SettingsError
from stages.encode.network import Network, decoded_psnr, psnr
from stages.encode.settings import EncodeSettings
from stages.latent_coders.describe import describe_coder
from stages.latent_coders.load import load_coder
from tests.peak_memory import peak_bytes
from tests.stages.vaes import OWN, folder
from tests.torch_state import one_thread

__all__ = ["one_thread"]

LENGTHS = (65, 129, 257)
WHOLE = 1 << 60


@pytest.fixture(scope="module")
def debug(tmp_path_factory):
    """The folder of a VAE of the size `debug`."""
    where = tmp_path_factory.mktemp("vae")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save(CausalVAE(sized("debug")), where)
    return str(where)


def pixels(frames: int, height: int = 16, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("chunk", [16, None])
def test_memory_does_not_grow_with_the_length_of_a_clip(debug, chunk):
    coder = load_coder(debug, device="cpu", chunk=chunk)
    coder.elements = 1 << 18 if chunk is None else WHOLE
    encoding, decoding = {}, {}
    for frames in LENGTHS:
        clip = pixels(frames, 32, 40)
        latents = coder.encode_pixels([clip]).mean
        encoding[frames] = peak_bytes(partial(coder.encode_pixels, [clip]))
        decoding[frames] = peak_bytes(partial(decoded_psnr, coder, latents, clip))
    for peaks in (encoding, decoding):
        assert max(peaks.values()) <= 1.2 * min(peaks.values()), peaks
    coder.chunk, coder.elements = None, WHOLE
    whole = peak_bytes(lambda: coder.encode_pixels([clip]))
    assert whole > 3 * encoding[257]  # which is what the test would see without pieces


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(("chunk", "elements"), [(4, WHOLE), (12, WHOLE), (None, 1 << 12), (None, 1)])
def test_pieces_give_what_the_whole_clip_gives(name, chunk, elements):
    coder, whole = (load_coder(str(folder(name)), device="cpu", chunk=each) for each in (chunk, None))
    coder.elements, whole.elements = elements, WHOLE
    videos = [pixels(41), pixels(41, seed=1)]
    assert len(coder.frames_of_pieces(2, 41, 16, 24)) > 2 and whole.frames_of_pieces(2, 41, 16, 24) == [41]
    found, wanted = coder.encode_pixels(videos), whole.encode_pixels(videos)
    floats = torch.from_numpy(np.stack(videos)).permute(0, 4, 1, 2, 3) / 127.5 - 1
    for one in (found, coder.encode(floats)):
        torch.testing.assert_close(one.mean, wanted.mean, atol=1e-5, rtol=0)
        if wanted.logvar is not None:
            torch.testing.assert_close(one.logvar, wanted.logvar, atol=1e-5, rtol=0)
        assert (one.tokens is None) == (wanted.tokens is None)
        if wanted.tokens is not None:
            assert torch.equal(one.tokens, wanted.tokens)
    pieces = list(coder.decode_pieces(wanted.mean))
    assert len(pieces) > 2 and not any(piece.requires_grad for piece in pieces)
    back = whole.decode(wanted.mean)
    torch.testing.assert_close(torch.cat(pieces, dim=2), back, atol=1e-5, rtol=0)
    torch.testing.assert_close(coder.decode(wanted.mean), back, atol=1e-5, rtol=0)
    decoded = back[0].permute(1, 2, 3, 0).numpy()
    assert decoded_psnr(coder, wanted.mean[:1], videos[0]) == pytest.approx(psnr(decoded, videos[0]), abs=1e-3)


def test_small_clips_go_whole_and_large_ones_in_pieces_by_themselves(debug):
    coder = load_coder(debug, device="cpu")
    assert coder.frames_of_pieces(1, 17, 64, 64) == [17]
    pieces = coder.frames_of_pieces(1, 65, 128, 128)
    assert len(pieces) > 1 and sum(pieces) == 65
    assert coder.clips_at_once(17, 64, 64) > 1 == coder.clips_at_once(65, 128, 128)


def test_frames_that_are_no_clip_are_refused_as_before_and_so_is_a_psnr_of_other_frames(debug):
    coder = load_coder(debug, device="cpu", chunk=4)
    with pytest.raises(ValueError, match="a clip of 40 frames"):
        coder.encode_pixels([pixels(40)])
    found = coder.encode_pixels([pixels(9)])
    with pytest.raises(ValueError, match="9 decoded frames against 13"):
        decoded_psnr(coder, found.mean, pixels(13))


@pytest.mark.parametrize(
    ("name", "chunk", "words"),
    [("kl", 3, "chunk 3: at least 4 frames"), ("wan", 16, "chunk 16: AutoencoderKLWan goes through a clip in its own")],
)
def test_a_chunk_that_can_t_be_is_refused(name, chunk, words):
    with pytest.raises(SettingsError, match=words):
        load_coder(str(folder(name)), device="cpu", chunk=chunk)


def network(**settings) -> Network:
    chosen = EncodeSettings(**{"vae": str(folder("kl")), "buckets": ("17x16x24",), "device": "cpu", **settings})
    return Network(chosen, describe_coder(chosen.vae))


def test_where_memory_ends_fewer_clips_go_together_and_then_smaller_pieces_of_one(monkeypatch, capfd):
    made, seen = network(batch_clips=4), []
    whole = made.coder.encode_pixels
    wanted = network()._encode([pixels(17, seed=seed) for seed in range(4)])

    def little_memory(videos):
        longest = max(made.coder.frames_of_pieces(len(videos), *videos[0].shape[:3]))
        seen.append((len(videos), longest))
        if len(videos) * longest > 8:
            raise RuntimeError("GET was unable to find an engine to execute this computation")
        return whole(videos)

    monkeypatch.setattr(made.coder, "encode_pixels", little_memory)
    answers = made.encode([pixels(17, seed=seed) for seed in range(4)])
    assert seen == [(4, 17), (2, 17), (1, 17)] + 4 * [(1, 8)]
    for answer, other in zip(answers, wanted, strict=True):
        np.testing.assert_allclose(answer["mean"], other["mean"], atol=1e-3)  # float16
    said = capfd.readouterr().err
    assert "no memory for 2 clips of 17x16x24 at a time: going on with 1" in said and "smaller pieces" in said


def test_a_clip_that_no_memory_holds_fails_alone_and_another_error_ends_the_run(monkeypatch):
    made = network()
    for error in (MemoryError(), RuntimeError("CUDNN_STATUS_ALLOC_FAILED")):
        monkeypatch.setattr(made.coder, "encode_pixels", lambda videos, error=error: (_ for _ in ()).throw(error))
        answers = made.encode([pixels(17), pixels(17)])
        assert all(isinstance(each, ClipError) for each in answers) and len(answers) == 2
    monkeypatch.setattr(made.coder, "encode_pixels", lambda videos: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match=r"size mismatch|inconsistent"):
        made.encode([pixels(17)])


def test_a_compiled_network_gets_every_batch_filled_so_that_it_is_compiled_once(monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **how: None)
    made, plain, seen = network(compile=True, batch_clips=2), network(batch_clips=2), []
    whole = made.coder.encode_pixels
    monkeypatch.setattr(made.coder, "encode_pixels", lambda videos: seen.append(len(videos)) or whole(videos))
    videos = [pixels(9, seed=seed) for seed in range(3)]
    answers = made.encode(videos)
    assert seen == [2, 2] and len(answers) == 3
    for answer, other in zip(answers, plain.encode(videos), strict=True):
        np.testing.assert_allclose(answer["mean"], other["mean"], atol=1e-3)


def test_no_batch_has_an_activation_beyond_what_the_memory_is_for(monkeypatch):
    made, seen = network(batch_clips=100), []
    made.coder.elements = 100_000
    whole = made.coder.encode_pixels
    monkeypatch.setattr(made.coder, "encode_pixels", lambda videos: seen.append(len(videos)) or whole(videos))
    made.encode([pixels(17)] * 12)
    assert max(seen) == made.coder.clips_at_once(17, 16, 24) < 12 and sum(seen) == 12
