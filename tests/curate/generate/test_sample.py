"""`clipmill sample`: from a run's folder and words to files, and one line for all that can be wrong."""

import json

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from curate.cli.main import main
from curate.demo import tiny_clip
from curate.demo.shapes import random_take, subjects, take_frames
from curate.errors import UserError
from curate.generate.sample import run_sample
from curate.generate.text_to_video import TextToVideo, read_picture
from models.saved import transformer_files, vae_files
from models.settings.transformers import DiTSettings, TokenSettings
from models.settings.vae import sized
from models.transformers.dit import DiT
from models.transformers.token_transformer import TokenTransformer
from models.vae.causal_vae import CausalVAE
from stages.latent_coders.describe import describe_coder
from stages.shards.contract import Contract
from stages.text_encoders.describe import describe_text
from stages.text_encoders.load import load_text_encoder
from stages.text_encoders.settings import TextEncoderSettings
from train.objectives.objective import PUBLISHED
from train.sampling.diffusion_samplers import SamplerSettings
from train.sampling.guidance import Guidance
from train.sampling.trained_run import SamplingSettings

pytestmark = pytest.mark.slow

BUCKET = "9x64x64"
QUICK = SamplingSettings(steps=2, guidance=Guidance(2.0))


def new_vae(folder, seed):
    torch.manual_seed(seed)
    network = CausalVAE(sized("debug"))
    count = network.settings.channels
    vae_files.save(network, folder, latents_mean=[0.1] * count, latents_std=[0.5] * count)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("sample"))


def untrained_run(folder):
    """A folder with `vae`, another one, and `run`: a small network that has seen nothing, saved as training does."""
    coder = describe_coder(str(new_vae(folder / "vae", 0)))
    new_vae(folder / "another", 1)
    text = TextEncoderSettings(model=str(tiny_clip.FOLDER), max_tokens=12)
    said = describe_text(text)
    contract = Contract(
        vae=coder.kind, fingerprint=coder.fingerprint, preprocessing=1, fps=8.0, channels=coder.channels,
        time_stride=coder.time_stride, first_frame=coder.first_frame, space_stride=coder.space_stride,
        mean=coder.mean, std=coder.std, dtype="float16", text={**said, "fields": {"text": "caption"}},
    )  # fmt: skip
    extra = {
        "contract": contract.to_dict(),
        "objective": PUBLISHED["rectified_flow"].to_dict(),
        "buckets": {"1x64x64": {"samples": 3}, BUCKET: {"samples": 50}},
        "vae": str(folder / "vae"),
        "text_model": str(tiny_clip.FOLDER),
    }
    torch.manual_seed(0)
    network = DiT(DiTSettings(channels=coder.channels, width=24, depth=1, heads=2, text_dim=said["dim"]))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    transformer_files.save(network, folder / "run" / "model", extra)
    empty = torch.from_numpy(load_text_encoder(text, device="cpu").empty())
    save_file({"text": empty}, folder / "run" / "model" / "empty_text.safetensors")
    return folder


@pytest.fixture(scope="module")
def model(place):
    return TextToVideo(place / "run", device="cpu")


def sample(place, output, *prompts, **options):
    return run_sample(place / "run", prompts, output, **{"steps": 2, "device": "cpu", **options})


def frames_of(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_one_prompt_makes_one_file_of_each_kind(place, tmp_path, capsys):
    for name in ("a.mp4", "a.gif", "a.png"):
        assert sample(place, tmp_path / name, "a red circle moving left") == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in ("a.mp4", "a.gif", "a.png")]
    assert frames_of(tmp_path / "a.mp4").shape == (9, 64, 64, 3)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 9 and gif.size == (64, 64)
    assert Image.open(tmp_path / "a.png").size[0] > 9 * 128


def test_chunk_and_dtype_of_the_command_reach_the_vae_and_the_network(place, tmp_path, monkeypatch):
    seen = []
    whole = CausalVAE._video
    monkeypatch.setattr(CausalVAE, "_video", lambda vae, z, stream=None: seen.append(z) or whole(vae, z, stream))
    command = ["sample", str(place / "run"), "--prompt", "a star", "--steps", "2", "--frames", "17", "--device", "cpu"]
    found = {}
    for name, options in {"whole": [], "pieces": ["--chunk", "4"], "half": ["--dtype", "bfloat16"]}.items():
        assert main([*command, "-o", str(tmp_path / f"{name}.png"), *options]) == 0
        found[name] = np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int)
    assert [(z.shape[2], z.dtype) for z in seen] == [(5, torch.float32), *5 * [(1, torch.float32)], (5, torch.bfloat16)]
    assert np.abs(found["whole"] - found["pieces"]).max() <= 1
    assert np.abs(found["whole"] - found["half"]).max() > 0 and np.abs(found["whole"] - found["half"]).mean() < 8


def test_several_prompts_make_numbered_films_or_one_sheet(place, tmp_path):
    prompts = ("a red circle", "a blue square", "")
    sample(place, tmp_path / "a.mp4", *prompts)
    sample(place, tmp_path / "a.png", *prompts)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a-1.mp4", "a-2.mp4", "a-3.mp4", "a.png"]
    films = [frames_of(tmp_path / f"a-{number}.mp4").astype(int) for number in (1, 2, 3)]
    assert all(np.abs(one - other).mean() > 0.1 for i, one in enumerate(films) for other in films[:i])


def test_a_prompt_with_a_seed_gives_the_same_video_alone_and_among_others(model):
    texts = ["a red circle", "a blue square moving up", "a star"]
    together = model.videos(model.prompts(texts, [4, 5, 4]), BUCKET, QUICK)
    for text, seed, video in zip(texts, [4, 5, 4], together, strict=True):
        (alone,) = model.videos(model.prompts([text], [seed]), BUCKET, QUICK)
        assert np.abs(alone.astype(int) - video).max() <= 1
    (other,) = model.videos(model.prompts(texts[:1], [6]), BUCKET, QUICK)
    assert np.abs(other.astype(int) - together[0]).mean() > 1
    (led_away,) = model.videos(model.prompts(texts[:1], [4], negative="a star"), BUCKET, QUICK)
    assert np.abs(led_away.astype(int) - together[0]).max() > 0


@pytest.mark.parametrize("method", ["euler", "ddpm"])
def test_the_picture_given_is_the_first_frame(place, model, tmp_path, method):
    """At 20 dB and more, which is what the VAE leaves of it."""
    picture = take_frames(random_take(subjects()[7], np.random.default_rng(0)), 1)[0]
    Image.fromarray(cv2.resize(picture, (256, 256), interpolation=cv2.INTER_NEAREST)).save(tmp_path / "a.png")
    settings = SamplingSettings(steps=2, sampler=SamplerSettings(method), guidance=Guidance(2.0))
    given = read_picture(str(tmp_path / "a.png"), BUCKET)
    assert np.abs(given.astype(int) - picture).max() <= 1
    videos = model.videos(model.prompts(["a red circle", "a star"], [1, 2]), BUCKET, settings, picture=given)
    for video in videos:
        error = np.square(video[0].astype(float) - picture).mean()
        assert 10 * np.log10(255**2 / error) >= 20
    assert np.abs(videos[0][-1].astype(int) - videos[1][-1]).mean() > 1


def test_a_picture_of_another_shape_is_cropped_as_clips_are(tmp_path):
    wide = np.zeros((90, 200, 3), np.uint8)
    wide[:, 55:145] = 200  # the middle square
    Image.fromarray(wide).save(tmp_path / "a.png")
    given = read_picture(str(tmp_path / "a.png"), BUCKET)
    assert given.shape == (64, 64, 3) and given[:, 2:-2].min() >= 195


def test_chained_clips_make_a_longer_video_that_begins_as_the_short_one(model):
    """Each goes on from the last five frames, one latent's four and the one before."""
    prompts = model.prompts(["a red circle", "a star"], [1, 1])
    short = model.videos(prompts, BUCKET, QUICK)
    heard = []
    long = model.videos(prompts, BUCKET, QUICK, clips=3, progress=lambda done, total: heard.append((done, total)))
    assert [video.shape for video in long] == [(9 + 2 * 4, 64, 64, 3)] * 2
    assert all(np.abs(one[:9].astype(int) - other).max() <= 1 for one, other in zip(long, short, strict=True))
    assert heard[-1] == (6, 6) and heard == sorted(heard)


def test_the_bucket_is_the_runs_unless_another_is_asked_for(model):
    assert model.bucket() == BUCKET
    assert model.bucket(frames=17) == "17x64x64" and model.bucket("5x48x80") == "5x48x80"
    (video,) = model.videos(model.prompts([""], [0]), "5x48x80", QUICK)
    assert video.shape == (5, 48, 80, 3)


def refused(call, said):
    with pytest.raises(UserError, match=said) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "--steps 0"),
        ({"sampler": "magic"}, "--sampler magic: there are euler"),
        ({"guidance": -1.0}, "--guidance -1"),
        ({"seed": -1}, "--seed -1"),
        ({"clips": 0}, "--chain 0"),
        ({"frames": 8}, r"1 \+ 4 n frames, not 8 .*learned from 1x64x64, 9x64x64"),
        ({"bucket": "9x60x64"}, "multiples of 8"),
        ({"bucket": "9x72x64"}, "9 x 8 don't fall into patches"),
        ({"bucket": "large"}, "expected FRAMESxHEIGHTxWIDTH"),
        ({"image": "no.png"}, "--image no.png: .*no such file|--image no.png"),
        ({"image": "letter.png"}, "--image letter.png: no JPEG, PNG or WebP"),
        ({"vae": "nowhere"}, "the VAE of .*nowhere.* --vae"),
        ({"vae": "{place}/another"}, "another is another VAE than that of the latents"),
        ({"text_model": "nowhere/at/all"}, "the text encoder of .*nowhere.* --text-model"),
        ({"chunk": 2}, "--chunk 2: at least 4 frames"),
        ({"conditions": {"speed": 1.0}}, "condition speed: this network has none"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(place, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letter.png").write_text("Dear reader")
    options = {key: value.format(place=place) if isinstance(value, str) else value for key, value in options.items()}
    refused(lambda: sample(place, tmp_path / "a.mp4", "a red circle", **options), said)
    assert [each.name for each in tmp_path.iterdir()] == ["letter.png"]


def test_a_prompt_longer_than_the_encoder_takes_is_refused(place, tmp_path):
    refused(lambda: sample(place, tmp_path / "a.mp4", "a red circle " * 9), r"'a red circle.*more than the 12 tokens")
    refused(lambda: sample(place, tmp_path / "a.mp4", "a star", negative="a " * 30), "more than the 12 tokens")


def test_runs_that_can_not_be_sampled_are_refused(place, tmp_path):
    def from_run(folder):
        return lambda: run_sample(folder, ["a star"], tmp_path / "a.mp4", steps=1, device="cpu")

    refused(from_run(tmp_path), "holds no trained network")
    refused(from_run(place / "vae"), "is no network of clipmill")
    config = json.loads((place / "run" / "model" / "config.json").read_text())
    for name, change in (
        ("no_vae", {"vae": None}),
        ("no_text", {"contract": {**config["extra"]["contract"], "text": None}}),
    ):
        (tmp_path / name).mkdir()
        for file in (place / "run" / "model").iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
        (tmp_path / name / "config.json").write_text(json.dumps({**config, "extra": {**config["extra"], **change}}))
    refused(from_run(tmp_path / "no_vae"), "does not say where its VAE lies: give its folder with --vae")
    refused(from_run(tmp_path / "no_text"), "was trained without text")


def test_runs_over_tokens_make_video_too(tmp_path):
    """Alone, from a first frame and in a chain, through the VAE's codebook."""
    torch.manual_seed(0)
    settings = sized("debug", quantizer="fsq", channels=3, quantizer_options={"levels": [4, 4, 4]})
    vae_files.save(CausalVAE(settings), tmp_path / "vae")
    coder = describe_coder(str(tmp_path / "vae"))
    contract = Contract(
        vae=coder.kind, fingerprint=coder.fingerprint, preprocessing=1, fps=8.0, channels=3, time_stride=4,
        first_frame=True, space_stride=8, mean=(), std=(), dtype="int32", codebook=coder.codebook,
    )  # fmt: skip
    network = TokenTransformer(TokenSettings(codes=coder.codebook, width=24, depth=1, heads=2))
    extra = {"contract": contract.to_dict(), "vae": str(tmp_path / "vae"), "buckets": {"9x16x16": {"samples": 1}}}
    transformer_files.save(network, tmp_path / "run" / "model", extra)
    model = TextToVideo(tmp_path / "run", device="cpu")
    plain = SamplingSettings(guidance=Guidance(1.0))
    one, other = model.videos(model.prompts(["", ""], [1, 2]), model.bucket(), plain)
    assert one.shape == other.shape == (9, 16, 16, 3) and (one != other).any()
    grey = np.full((16, 16, 3), 90, np.uint8)
    (led,) = model.videos(model.prompts([""], [1]), model.bucket(), plain, picture=grey)
    (long,) = model.videos(model.prompts([""], [1]), model.bucket(), plain, picture=grey, clips=2)
    assert long.shape == (13, 16, 16, 3) and np.abs(long[:9].astype(int) - led).max() <= 1
    assert (
        np.abs(
            led[0].astype(int) - model.videos(model.prompts([""], [2]), model.bucket(), plain, picture=grey)[0][0]
        ).max()
        <= 1
    )
