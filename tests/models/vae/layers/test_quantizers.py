"""Quantisers: tokens are the whole truth about a latent, gradients reach the encoder, nothing turns to NaN."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.vae.layers.quantizers import (
    FiniteScalarQuantizer,
    GaussianKL,
    LookupFreeQuantizer,
    VectorQuantizer,
    make_quantizer,
)

MADE = {
    "kl": lambda: GaussianKL(3),
    "vq": lambda: VectorQuantizer(4, codes=32),
    "lfq": lambda: LookupFreeQuantizer(5),
    "fsq": lambda: FiniteScalarQuantizer((8, 5, 4)),
}
DISCRETE = ("vq", "lfq", "fsq")
fast = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def features_for(quantizer, shape=(2, 3, 4, 5), scale=2.0, dtype=torch.float32) -> torch.Tensor:
    batch, *rest = shape
    return (scale * torch.randn(batch, quantizer.features, *rest)).to(dtype)


shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))


@fast
@given(
    kind=st.sampled_from(DISCRETE),
    shape=shapes,
    scale=st.sampled_from((0.0, 0.3, 3.0, 1e4)),
    dtype=st.sampled_from((torch.float32, torch.bfloat16)),
    training=st.booleans(),
    seed=st.integers(0, 99),
)
def test_tokens_stand_for_exactly_what_the_decoder_gets(kind, shape, scale, dtype, training, seed):
    torch.manual_seed(seed)
    quantizer = MADE[kind]().train(training)
    features = features_for(quantizer, shape, scale, dtype)
    codebook = quantizer.codebook.clone() if kind == "vq" and not training else None
    found = quantizer(features)
    assert found.latent.dtype == dtype
    assert found.latent.shape == (shape[0], quantizer.channels, *shape[1:])
    assert found.tokens.shape == (shape[0], *shape[1:])
    assert found.tokens.dtype == torch.int64
    assert 0 <= found.tokens.min() <= found.tokens.max() < quantizer.codes
    if codebook is not None:
        assert torch.equal(quantizer.codebook, codebook)
    if kind == "vq" and training:  # its codes have moved on since: see the next test
        return
    assert torch.equal(quantizer.latent_of(found.tokens).to(dtype), found.latent)


def test_a_vector_quantizer_in_training_gives_what_its_tokens_stood_for_when_it_was_asked():
    quantizer = VectorQuantizer(4, codes=16).train()
    quantizer(features_for(quantizer))
    before = quantizer.codebook.clone()
    found = quantizer(features_for(quantizer))
    assert torch.equal(before[found.tokens].movedim(-1, 1), found.latent)
    assert not torch.equal(before, quantizer.codebook)


@pytest.mark.parametrize("kind", DISCRETE)
def test_every_token_stands_for_a_latent_of_its_own(kind):
    quantizer = MADE[kind]()
    tokens = torch.arange(quantizer.codes).view(1, 1, 1, -1)
    latent = quantizer.latent_of(tokens)
    assert len(latent.flatten(2).squeeze(0).T.unique(dim=0)) == quantizer.codes
    if kind != "fsq":  # whose latents are not its features: they have been squashed
        assert torch.equal(quantizer.eval()(latent).tokens, tokens)
    for wrong in (-1, quantizer.codes):
        with pytest.raises(ValueError, match=f"of {quantizer.codes} codes"):
            quantizer.latent_of(torch.full((1, 1, 1, 1), wrong))


@pytest.mark.parametrize("kind", ["vq", "lfq"])
def test_gradients_pass_straight_through(kind):
    quantizer = MADE[kind]().train()
    features = features_for(quantizer).requires_grad_()
    latent = quantizer(features).latent
    weights = torch.randn_like(latent)
    (latent * weights).sum().backward()
    assert torch.equal(features.grad, weights)


def test_gradients_of_fsq_are_those_of_its_squashing():
    quantizer = FiniteScalarQuantizer((8, 5))
    features = features_for(quantizer, scale=0.7).requires_grad_()
    quantizer(features).latent.sum().backward()
    step = 1e-3
    # The mean latent of many roundings at random offsets is the smooth curve; its slope is what has to arrive.
    levels = torch.tensor([8, 5]).view(1, 2, 1, 1, 1)
    reach, half = (levels - 1) * 1.001 / 2, levels // 2
    shift = torch.where(levels % 2 == 0, 0.5, 0.0)

    def curve(x):
        return ((x + torch.atanh(shift / reach)).tanh() * reach - shift) / half

    slope = (curve(features.detach().double() + step) - curve(features.detach().double() - step)) / (2 * step)
    assert torch.allclose(features.grad.double(), slope, atol=1e-5)


@pytest.mark.parametrize("kind", MADE)
def test_losses_reach_every_feature(kind):
    quantizer = MADE[kind]().train()
    features = features_for(quantizer, scale=0.7).requires_grad_()
    found = quantizer(features)
    (found.loss + (found.latent * torch.randn_like(found.latent)).sum()).backward()
    assert (features.grad != 0).float().mean() > 0.99


@pytest.mark.parametrize("kind", MADE)
def test_an_encoder_learns_through_it(kind):
    """A linear encoder and decoder of smooth data: what they lose falls to less than half of the data's variance."""
    quantizer = MADE[kind]().train()
    encoder = torch.nn.Conv3d(8, quantizer.features, 1)
    decoder = torch.nn.Conv3d(quantizer.channels, 8, 1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-2)
    mixing = torch.randn(2, 8)
    for _ in range(150):
        data = (torch.randn(4, 2, 4, 4, 2) @ mixing).movedim(-1, 1)  # two hidden numbers show in eight channels
        found = quantizer(encoder(data))
        lost = (decoder(found.latent) - data).square().mean()
        optimizer.zero_grad()
        (lost + 1e-3 * found.loss).backward()
        optimizer.step()
    assert lost < 0.5 * data.var()


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("level", [-1e12, -1.0, 0.0, 1.0, 300.0, 1e12, "noise"])
def test_hostile_features_in_bfloat16_give_no_nan(kind, level):
    quantizer = MADE[kind]().train()
    features = features_for(quantizer, scale=1e3, dtype=torch.bfloat16)
    if level != "noise":
        features = torch.full_like(features, level)
    features.requires_grad_()
    found = quantizer(features)
    assert found.latent.isfinite().all()
    assert found.loss.isfinite()
    (found.latent.float().mean() + found.loss).backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("kind", MADE)
def test_the_loss_does_not_grow_with_the_length_of_a_clip(kind):
    quantizer = MADE[kind]().eval()
    features = features_for(quantizer)
    longer = features.repeat(1, 1, 5, 1, 1)
    assert quantizer(features).loss.item() == pytest.approx(quantizer(longer).loss.item(), rel=1e-4)


def test_kl_is_that_of_torch_and_samples_have_the_moments_given():
    quantizer = GaussianKL(2)
    features = features_for(quantizer, scale=1.0)
    mean, logvar = quantizer.moments(features)
    normal = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).mean()
    assert quantizer(features).loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(quantizer.eval()(features).latent, mean)
    many = quantizer.train()(features[:1, :, :1, :1, :1].expand(20000, -1, -1, -1, -1)).latent
    assert torch.allclose(many.mean(0), mean[0, :, :1, :1, :1], atol=0.05)
    assert torch.allclose(many.std(0), (0.5 * logvar).exp()[0, :, :1, :1, :1], rtol=0.05)
    with pytest.raises(ValueError, match="no tokens"):
        quantizer.latent_of(torch.zeros(1, 1, 1, 1, dtype=torch.int64))


@fast
@given(codes=st.integers(1, 40), shape=shapes, most=st.integers(1, 200), seed=st.integers(0, 99))
def test_the_code_is_the_nearest_however_distances_are_split_up(codes, shape, most, seed):
    torch.manual_seed(seed)
    quantizer = VectorQuantizer(4, codes=codes).eval()
    quantizer.MOST_DISTANCES = most
    features = features_for(quantizer, shape)
    flat = features.movedim(1, -1).reshape(-1, 4)
    distances = torch.cdist(flat.double(), quantizer.codebook.double())
    chosen = distances.gather(1, quantizer(features).tokens.view(-1, 1)).squeeze(1)
    assert torch.allclose(chosen, distances.amin(1), atol=1e-5)


def test_codes_that_nothing_is_near_come_back():
    centres = 10 * torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)))
    quantizer = VectorQuantizer(3, codes=8, decay=0.8).train()
    quantizer(100 + torch.randn(2, 3, 2, 4, 4))  # starts far off: all codes but one will be left behind
    for _ in range(60):
        data = (centres[torch.randint(8, (512,))] + 0.1 * torch.randn(512, 3)).view(2, 4, 8, 8, 3).movedim(-1, 1)
        found = quantizer(data)
    assert found.tokens.unique().numel() == 8
    assert (found.latent - data).square().mean() < 0.4 * data.square().mean()  # one code alone would leave all of it


def test_codes_move_to_the_middle_of_what_they_are_given():
    centres = 10 * torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)))
    quantizer = VectorQuantizer(3, codes=8, decay=0.8).train()
    quantizer.codebook.copy_(0.5 * centres)
    quantizer.sums.copy_(quantizer.codebook)
    quantizer.started.fill_(True)
    for _ in range(60):
        data = centres[torch.randint(8, (512,))] + 0.1 * torch.randn(512, 3)
        quantizer(data.view(2, 4, 8, 8, 3).movedim(-1, 1))
    assert torch.allclose(quantizer.codebook, centres, atol=0.05)


def _train_one_of_two(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(rank)
    quantizer = VectorQuantizer(4, codes=16).train()
    quantizer.load_state_dict(torch.load(f"{folder}/start"))
    quantizer.DEAD = 0.0
    batches = torch.load(f"{folder}/batches")
    for batch in batches:
        quantizer(batch[rank::2])
    torch.save(quantizer.state_dict(), f"{folder}/end{rank}")
    torch.distributed.destroy_process_group()


def test_processes_that_share_a_batch_keep_one_codebook_that_of_the_whole_batch(tmp_path):
    whole = VectorQuantizer(4, codes=16).train()
    whole.DEAD = 0.0  # which features replace a dead code is a matter of chance
    whole(features_for(whole, (4, 2, 4, 4)))
    torch.save(whole.state_dict(), tmp_path / "start")
    batches = [features_for(whole, (4, 2, 4, 4)) for _ in range(3)]
    torch.save(batches, tmp_path / "batches")
    torch.multiprocessing.start_processes(_train_one_of_two, (str(tmp_path),), nprocs=2, start_method="fork")
    for batch in batches:
        whole(batch)
    first, second = (torch.load(tmp_path / f"end{rank}") for rank in (0, 1))
    for name, value in whole.state_dict().items():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name].float(), value.float(), atol=1e-5)


def test_a_saved_codebook_goes_on_where_it_was():
    first = VectorQuantizer(4, codes=16).train()
    first(features_for(first))
    second = VectorQuantizer(4, codes=16)
    second.load_state_dict(first.state_dict())
    features = features_for(first)
    torch.manual_seed(1)
    one = first(features)
    torch.manual_seed(1)
    other = second.train()(features)
    assert torch.equal(one.latent, other.latent)
    assert torch.equal(first.codebook, second.codebook)


@fast
@given(channels=st.integers(1, 7), group=st.integers(1, 7), temperature=st.sampled_from((0.5, 1.0, 4.0)))
def test_entropies_of_lfq_are_those_of_the_softmax_over_all_codes(channels, group, temperature):
    torch.manual_seed(channels)
    quantizer = LookupFreeQuantizer(channels, commitment=0.0, entropy=1.0, temperature=temperature)
    quantizer.GROUP = group
    features = features_for(quantizer, (1, 2, 3, 3), scale=0.5)
    flat = features.movedim(1, -1).reshape(-1, channels)

    def entropy(chances):
        return -(chances * chances.clamp(min=1e-30).log()).sum(-1)

    def chances(part):
        codes = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=part.shape[1])))
        return (-torch.cdist(part, codes).square() / temperature).softmax(1)

    each = entropy(chances(flat)).mean()
    spread = sum(entropy(chances(part).mean(0)) for part in flat.split(group, dim=1))
    assert quantizer(features).loss.item() == pytest.approx(((each - spread) / channels).item(), abs=1e-4)


def test_lfq_is_rewarded_for_sure_features_that_use_all_codes():
    quantizer = LookupFreeQuantizer(4, commitment=0.0, entropy=1.0)
    every = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4))).T.reshape(1, 4, 1, 4, 4)
    one = torch.ones_like(every)
    assert quantizer(every).loss < quantizer(0.1 * every).loss < quantizer(0 * every).loss + 1e-6
    assert quantizer(every).loss < quantizer(one).loss - 0.5
    assert quantizer(10 * every).loss.item() == pytest.approx(-math.log(2), abs=1e-4)


def test_what_cant_be_made_is_refused():
    assert isinstance(make_quantizer("fsq", 2, levels=(4, 4)), FiniteScalarQuantizer)
    assert make_quantizer("vq", 4, codes=64).codes == 64
    with pytest.raises(ValueError, match="unknown quantizer 'pq': kl, vq, lfq, fsq"):
        make_quantizer("pq", 4)
    with pytest.raises(ValueError, match=r"FSQ has 2 levels \(\[4, 4\]\) for 3 channels"):
        make_quantizer("fsq", 3, levels=(4, 4))
    with pytest.raises(ValueError, match="1 to 62 channels, got 63"):
        make_quantizer("lfq", 63)
    with pytest.raises(ValueError, match="two levels or more"):
        FiniteScalarQuantizer((8, 1))


def test_a_codebook_stays_as_it_is_in_a_network_that_is_cast():
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), VectorQuantizer(4, codes=16))
    before = network[1].codebook.clone()
    network.to(torch.bfloat16)
    assert network[0].weight.dtype == torch.bfloat16
    assert torch.equal(network[1].codebook, before)
    assert network.half().to("meta")[1].codebook.device.type == "meta"
