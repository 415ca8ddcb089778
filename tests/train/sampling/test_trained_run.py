"""Sampling from a run's folder: seeds, guidance, given latents, and refused inputs."""

import json

import pytest
import torch
from safetensors.torch import save_file

from models.saved import transformer_files
from models.settings.transformers import DiTSettings, TokenSettings
from models.transformers.dit import DiT
from models.transformers.token_transformer import TokenTransformer
from train.objectives.objective import PUBLISHED
from train.sampling.diffusion_samplers import SamplerSettings
from train.sampling.guidance import Guidance
from train.sampling.trained_run import Prompt, SamplingSettings, load_run, padded

CONTRACT = {"mean": [0.5, -1.0], "std": [2.0, 0.25], "channels": 2, "codebook": None}
SHAPE = (2, 3, 4, 4)  # C, T, h, w
SAMPLERS = [SamplerSettings(name) for name in ("euler", "heun", "ddim", "ddpm", "euler_maruyama")]
SAMPLERS.append(SamplerSettings("ddim", eta=0.7))


def named(sampler: SamplerSettings) -> str:
    return f"{sampler.method}-{sampler.eta:g}"


def saved(folder, network, contract, empty=True, objective="rectified_flow"):
    extra = {"contract": contract, "objective": PUBLISHED[objective].to_dict()}
    transformer_files.save(network, folder / "model", extra)
    if empty:
        save_file({"text": torch.randn(2, 5, generator=torch.Generator().manual_seed(8))},
                  folder / "model" / "empty_text.safetensors")  # fmt: skip
    return folder


def shaken(network):
    """Weights as after some training: a network whose output is 0 would hide the effect of its inputs."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    return network


def dit(**changes):
    torch.manual_seed(0)
    values = {"channels": 2, "width": 24, "depth": 2, "heads": 2, "text_dim": 5, "conditions": ("motion",)}
    return DiT(DiTSettings(**{**values, **changes}))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run as training leaves it, with weights that respond to everything."""
    return load_run(saved(tmp_path_factory.mktemp("run"), shaken(dit()), CONTRACT))


@pytest.fixture(scope="module")
def token_run(tmp_path_factory):
    torch.manual_seed(0)
    network = shaken(TokenTransformer(TokenSettings(codes=11, width=24, depth=2, heads=2, text_dim=5)))
    contract = {"mean": [], "std": [], "channels": 4, "codebook": 11}
    return load_run(saved(tmp_path_factory.mktemp("tokens"), network, contract))


def text(seed, length=4):
    return torch.randn(length, 5, generator=torch.Generator().manual_seed(seed))


def quick(**changes):
    return SamplingSettings(**{"steps": 3, "guidance": Guidance(2.0), **changes})


@pytest.mark.parametrize("sampler", SAMPLERS, ids=named)
def test_a_seed_gives_the_same_sample_alone_and_among_others(run, sampler):
    prompts = [Prompt(text(1), seed=5), Prompt(text(2, 7), seed=6), Prompt(seed=5, conditions={"motion": 1.5})]
    settings = quick(sampler=sampler)
    together = run.sample(prompts, SHAPE, settings)
    for prompt, sample in zip(prompts, together, strict=True):
        alone = run.sample([prompt], SHAPE, settings)[0]
        assert torch.allclose(alone, sample, atol=1e-4, rtol=1e-4)
    assert torch.equal(run.sample(prompts, SHAPE, settings), together)


def test_seeds_prompts_negative_prompts_and_conditions_each_change_the_sample(run):
    plain = Prompt(text(1), seed=5)
    others = [
        Prompt(text(1), seed=6),
        Prompt(text(2), seed=5),
        Prompt(None, seed=5),
        Prompt(text(1), text(3), seed=5),
        Prompt(text(1), conditions={"motion": 2.0}, seed=5),
    ]
    samples = run.sample([plain, *others], SHAPE, quick())
    assert all((each - samples[0]).abs().max() > 1e-3 for each in samples[1:])


def test_the_negative_prompt_is_the_empty_one_unless_another_is_given(run):
    prompts = [Prompt(text(1), seed=5), Prompt(text(1), run.empty, seed=5)]
    samples = run.sample(prompts, SHAPE, quick())
    assert torch.allclose(samples[0], samples[1], atol=1e-6)
    unguided = run.sample([Prompt(text(1), text(3), seed=5)], SHAPE, quick(guidance=Guidance(1.0)))
    assert torch.equal(unguided, run.sample([Prompt(text(1), seed=5)], SHAPE, quick(guidance=Guidance(1.0))))


class Products:
    """The dtypes of a network's matrix products."""

    def __init__(self, network):
        self.dtypes = set()
        for module in network.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_hook(lambda _, __, out: self.dtypes.add(out.dtype))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=named)
def test_matrix_products_are_computed_in_the_dtype_asked_for_and_samples_in_float32(tmp_path, sampler):
    folder, found = saved(tmp_path, shaken(dit()), CONTRACT), {}
    for dtype in ("auto", "float32", "bfloat16"):
        run = load_run(folder, dtype=dtype)
        products = Products(run.network)
        found[dtype] = run.sample([Prompt(text(1), seed=5)], SHAPE, quick(sampler=sampler))
        assert found[dtype].dtype == torch.float32
        assert (torch.bfloat16 in products.dtypes) == (dtype == "bfloat16")
    assert torch.equal(found["auto"], found["float32"])
    difference = (found["bfloat16"] - found["float32"]).abs().max()
    assert 0 < difference < 0.1 * found["float32"].abs().max()


def test_tokens_are_sampled_in_bfloat16_too(token_run, tmp_path):
    contract = {"mean": [], "std": [], "channels": 4, "codebook": 11}
    run = load_run(saved(tmp_path, token_run.network, contract), dtype="bfloat16")
    products = Products(run.network)
    found = run.sample([Prompt(text(1), seed=5)], (2, 2, 2), quick())
    assert torch.bfloat16 in products.dtypes and found.dtype == torch.int64 and 0 <= found.min() <= found.max() < 11


def test_latents_are_scaled_back_by_the_contract(tmp_path):
    """A new network says that the velocity is 0: the flow stays where the noise was."""
    run = load_run(saved(tmp_path, dit(), CONTRACT))
    (sample,) = run.sample([Prompt(text(1), seed=5)], SHAPE, quick(sampler=SamplerSettings("heun")))
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))
    wanted = noise * torch.tensor([2.0, 0.25]).view(2, 1, 1, 1) + torch.tensor([0.5, -1.0]).view(2, 1, 1, 1)
    # All but the last step of Heun's, which goes to x_0 = x - t v: the same where v is 0.
    assert torch.allclose(sample, wanted, atol=1e-5)
    assert torch.allclose(run.normalized(sample[None])[0], noise, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=named)
def test_given_latents_stay_as_they_are_and_tell_on_the_others(run, sampler):
    first, last = torch.randn(2, 2, 1, 4, 4), torch.randn(1, 2, 1, 4, 4)
    prompts, settings = [Prompt(text(1), seed=5), Prompt(text(2), seed=6)], quick(sampler=sampler)
    free = run.sample(prompts, SHAPE, settings)
    led = run.sample(prompts, SHAPE, settings, first)
    between = run.sample(prompts, SHAPE, settings, first, last)
    back = run.sample(prompts, SHAPE, settings, last=last)
    assert torch.equal(led[:, :, :1], first)
    assert torch.equal(between[:, :, :1], first) and torch.equal(between[:, :, 2:], last.expand(2, -1, -1, -1, -1))
    assert torch.equal(back[:, :, 2:], last.expand(2, -1, -1, -1, -1))
    middles = [each[:, :, 1] for each in (free, led, between, back)]
    assert all((one - other).abs().max() > 1e-3 for i, one in enumerate(middles) for other in middles[:i])


def test_longer_video_goes_on_from_the_end_of_the_clip_before(run):
    """With frames that are latents, one each: every clip but the first is led by the last two frames before it."""
    heard = []

    def encode(frames):
        heard.append(frames)
        return frames

    parts = list(run.sample_longer([Prompt(text(1), seed=5)], SHAPE, 3, 2, lambda z: z, encode, quick()))
    assert [part.shape[2] for part in parts] == [3, 1, 1]
    assert torch.equal(heard[0], parts[0][:, :, 1:])
    assert torch.equal(heard[1], torch.cat([parts[0][:, :, 2:], parts[1]], 2))
    alone = run.sample([Prompt(text(1), seed=5)], SHAPE, quick())
    assert torch.equal(parts[0], alone)
    assert (parts[1] - parts[2]).abs().max() > 1e-3


def test_tokens_go_by_seed_prompt_and_what_is_given(token_run):
    shape = (2, 2, 3)
    prompts = [Prompt(text(1), seed=5), Prompt(text(2), seed=5), Prompt(text(1), seed=6)]
    found = token_run.sample(prompts, shape, quick())
    assert found.shape == (3, *shape) and found.dtype == torch.int64
    assert found.min() >= 0 and found.max() < 11
    assert torch.equal(token_run.sample(prompts[1:2], shape, quick())[0], found[1])
    assert not torch.equal(found[0], found[2])
    first = torch.randint(11, (1, 1, 2, 3))
    assert torch.equal(token_run.sample(prompts, shape, quick(), first)[:, :1], first.expand(3, -1, -1, -1))
    with pytest.raises(ValueError, match="one after another"):
        token_run.sample(prompts, shape, quick(), last=first)


def test_texts_are_padded_behind_their_end():
    padded_text, mask = padded([text(1, 2), text(2, 5)])
    assert padded_text.shape == (2, 5, 5) and mask.sum(1).tolist() == [2, 5]
    assert torch.equal(padded_text[0, :2], text(1, 2)) and not padded_text[0, 2:].any()


@pytest.mark.parametrize(
    ("prompts", "shape", "given", "said"),
    [
        ([], SHAPE, {}, "no prompts"),
        ([Prompt(torch.zeros(4, 7))], SHAPE, {}, r"\(4, 7\): this network takes \(L, 5\)"),
        ([Prompt(conditions={"speed": 1})], SHAPE, {}, "condition speed: this network has motion"),
        ([Prompt()], (2, 3, 5, 4), {}, "5 x 4"),
        ([Prompt()], SHAPE, {"first": torch.zeros(1, 2, 3, 4, 4)}, "at least one must be left"),
        ([Prompt()], SHAPE, {"first": torch.zeros(1, 2, 1, 4, 6)}, r"first latents of shape \(1, 2, 1, 4, 6\)"),
        ([Prompt()], SHAPE, {"last": torch.zeros(1, 3, 1, 4, 4)}, r"last latents of shape \(1, 3, 1, 4, 4\)"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(run, prompts, shape, given, said):
    with pytest.raises(ValueError, match=said):
        run.sample(prompts, shape, quick(), **given)


def test_folders_that_hold_no_run_are_refused_in_one_line(tmp_path):
    def refused(folder, said):
        with pytest.raises(ValueError, match=said) as error:
            load_run(folder)
        assert "\n" not in str(error.value)

    refused(tmp_path, "holds no trained network")
    run = saved(tmp_path / "other", dit(), {**CONTRACT, "channels": 3, "mean": [0.0] * 3, "std": [1.0] * 3})
    refused(run, "takes 2 channels, its contract says 3")
    run = saved(tmp_path / "broken", dit(), CONTRACT)
    (run / "model" / "empty_text.safetensors").write_text("Dear reader")
    refused(run, "empty_text.safetensors can't be read")
    config = json.loads((run / "model" / "config.json").read_text())
    (run / "model" / "config.json").write_text(json.dumps({**config, "extra": {}}))
    refused(run, "says no contract")
    silent = load_run(saved(tmp_path / "silent", dit(), CONTRACT, empty=False))
    with pytest.raises(ValueError, match="safetensors is missing"):
        silent.sample([Prompt(text(1))], SHAPE, quick())


def test_a_network_without_text_takes_no_prompt(tmp_path):
    run = load_run(saved(tmp_path, shaken(dit(text_dim=0)), CONTRACT, empty=False))
    samples = run.sample([Prompt(seed=1), Prompt(seed=1, conditions={"motion": 3.0})], SHAPE, quick())
    assert (samples[0] - samples[1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="trained without text"):
        run.sample([Prompt(text(1))], SHAPE, quick())
    bare = load_run(saved(tmp_path / "bare", dit(text_dim=0, conditions=()), CONTRACT, empty=False))
    with pytest.raises(ValueError, match="guide away from"):
        bare.sample([Prompt()], SHAPE, quick())
    assert bare.sample([Prompt()], SHAPE, quick(guidance=Guidance(1.0))).shape == (1, *SHAPE)
