"""The terms that a VAE is trained by: what they measure, and that their strength is one per element."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.vae.layers.quantizers import Quantized
from train.config.vae import LossConfig
from train.vae.losses.discriminator import PatchDiscriminator, adaptive_weight, discriminator_loss, generator_loss
from train.vae.losses.losses import VAELosses, frames, perceptual_term
from train.vae.losses.perceptual import LPIPS, gradient_loss, load_lpips

torchvision = pytest.importorskip("torchvision")

WIDTHS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}
LISTENS = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}  # layers of torchvision's features


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        yield


@pytest.fixture(scope="module", params=["vgg", "alex"])
def weights(request, tmp_path_factory):
    """(name, torchvision's network of random weights, files of LPIPS weights and of the backbone)."""
    folder = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if request.param == "vgg":  # its features alone: the rest would be 120 M random numbers
            network = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
        else:
            network = torchvision.models.alexnet().features
        linear = {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in enumerate(WIDTHS[request.param])}
    features = {f"features.{name}": value for name, value in network.state_dict().items()}
    torch.save(linear, folder / "lpips.pth")
    torch.save(features, folder / "backbone.pth")
    return request.param, network.eval(), linear, folder


def pictures(count: int = 2, side: int = 48, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_lpips_is_what_its_paper_says_of_torchvisions_features(weights):
    name, features, linear, folder = weights
    measure = load_lpips(folder / "lpips.pth", folder / "backbone.pth")
    one, other = pictures(side=64, seed=1), pictures(side=64, seed=2)

    def heard(x):
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x, found = (x - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1), []
        for index, layer in enumerate(features):
            x = layer(x.clone())
            if index in LISTENS[name]:
                found.append(F.normalize(x, dim=1))
        return found

    with torch.no_grad():
        expected = sum(
            (linear[f"lin{i}.model.1.weight"] * (a - b) ** 2).sum(1).mean((1, 2))
            for i, (a, b) in enumerate(zip(heard(one), heard(other), strict=True))
        )
        found = measure(one, other)
        assert measure.name == name
        assert torch.allclose(found, expected, rtol=1e-4)
        assert (found > 0).all() and torch.equal(measure(one, one), torch.zeros(2))
    assert not any(each.requires_grad for each in measure.parameters())


def test_weights_that_are_not_lpips_are_refused_in_one_line(weights, tmp_path):
    _, _, linear, folder = weights
    with pytest.raises(ValueError, match="neither torchvision's VGG-16 nor its AlexNet"):
        LPIPS(linear, linear)
    short = {key: value[:, :5] for key, value in linear.items()}
    with pytest.raises(ValueError, match=r"LPIPS weights should have lin0.model.1.weight of \(1, 64, 1, 1\)"):
        LPIPS(short, torch.load(folder / "backbone.pth"))
    (tmp_path / "text.pth").write_text("weights? no")
    with pytest.raises(ValueError, match=r"text\.pth can't be read as weights") as caught:
        load_lpips(tmp_path / "text.pth", folder / "backbone.pth")
    assert "\n" not in str(caught.value)


def test_which_perceptual_term_is_used_is_said_plainly(weights):
    name, _, _, folder = weights
    files = {"lpips": str(folder / "lpips.pth"), "backbone": str(folder / "backbone.pth")}
    cpu = torch.device("cpu")
    assert perceptual_term(LossConfig(perceptual="lpips", **files), cpu)[1] == f"LPIPS ({name})"
    assert perceptual_term(LossConfig(perceptual="none"), cpu) == (None, "none")
    assert "no LPIPS" in perceptual_term(LossConfig(), cpu)[1]
    with pytest.raises(ValueError, match=r"needs loss\.lpips"):
        LossConfig(perceptual="lpips")


def test_gradients_forgive_light_and_not_moved_edges():
    one = torch.zeros(1, 3, 32, 32)
    one[..., 8:16] = 1
    assert gradient_loss(one, one + 0.3).item() == pytest.approx(0, abs=1e-6)
    near, far = gradient_loss(one, one.roll(1, -1)), gradient_loss(one, one.roll(8, -1))
    assert 0 < near < far


def test_no_term_is_stronger_for_a_longer_larger_or_fuller_batch():
    """Each is a mean: the same clip twice as long, twice as wide and three times in a batch has the same losses."""
    torch.manual_seed(0)
    critic = PatchDiscriminator(4, 2).requires_grad_(False)
    small, back = torch.rand(1, 3, 4, 1, 1) - 0.5, torch.rand(1, 3, 4, 1, 1) - 0.5
    # Plain frames that do not move: a border in space and the first frame in time are as all others.
    found = []
    for batch, count, side in ((1, 5, 32), (3, 9, 64)):
        video, again = (x[:, :, :1].expand(batch, 3, count, side, side) for x in (small, back))
        again = again.clone().requires_grad_()
        losses = VAELosses(LossConfig(pixels="mse"), discrete=False, perceptual=gradient_loss)
        last = torch.ones((), requires_grad=True)
        _, terms = losses(video, again * last, Quantized(video, torch.tensor(0.7)), last)
        found.append(terms)
        assert terms["perceptual"] == pytest.approx(0, abs=1e-6) and terms["kl"] == pytest.approx(0.7)
    assert found[0]["mse"] == pytest.approx(found[1]["mse"], rel=1e-5)
    scores = [critic(small[:, :, :1].expand(1, 3, count, 96, 96)).mean().item() for count in (1, 5, 9)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4) == pytest.approx(scores[2], rel=1e-4)


def test_the_adversarial_term_pulls_as_hard_as_the_others_times_its_weight():
    last = torch.ones(3, requires_grad=True)
    rest, adversarial = (last * torch.tensor([3.0, 0.0, 4.0])).sum(), (last * torch.tensor([0.0, 0.5, 0.0])).sum()
    ratio = adaptive_weight(rest, adversarial, last)
    assert ratio.item() == pytest.approx(10, rel=1e-3) and not ratio.requires_grad
    nothing = (last * 0).sum()
    assert adaptive_weight(rest, nothing, last).item() == 1e4


def test_the_adversarial_term_joins_the_sum_when_the_discriminator_does():
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    last = torch.ones((), requires_grad=True)
    losses = VAELosses(LossConfig(adversarial=0.5), discrete=False, perceptual=None)
    passed = Quantized(video, torch.tensor(2.0))
    without, terms = losses(video, video * 0.5 * last, passed, last)
    assert set(terms) == {"l1", "kl"}
    assert without.item() == pytest.approx(terms["l1"] + 1e-6 * 2.0)
    critic = PatchDiscriminator(4, 2).requires_grad_(False)
    total, terms = losses(video, video * 0.5 * last, passed, last, critic)
    expected = without.item() + 0.5 * terms["adversarial_ratio"] * terms["adversarial"]
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_hinge_losses_leave_alone_what_is_told_apart_well_enough():
    real, fake = torch.full((4,), 1.5), torch.full((4,), -2.0)
    assert discriminator_loss(real, fake) == 0
    assert discriminator_loss(fake, real) == pytest.approx(0.5 * (3.0 + 2.5))
    assert generator_loss(fake) == 2


def test_a_discriminator_takes_images_and_video_and_learns_to_tell_noise_from_plain_pictures():
    critic = PatchDiscriminator(8, 2)
    assert critic(torch.zeros(2, 3, 1, 32, 32)).shape[:3] == (2, 1, 1)
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3)
    noise, plain = torch.randn(2, 3, 5, 24, 24), torch.randn(2, 3, 1, 1, 1).expand(2, 3, 5, 24, 24)
    losses = []
    for _ in range(12):
        loss = discriminator_loss(critic(plain), critic(noise))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_frames_of_a_video_come_clip_after_clip():
    video = torch.arange(2 * 3 * 4).float().view(2, 3, 4, 1, 1)
    assert torch.equal(frames(video)[5, :, 0, 0], video[1, :, 1, 0, 0])
