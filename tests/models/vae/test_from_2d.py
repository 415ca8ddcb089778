"""With a 2D VAE's weights the causal VAE codes every image as that one does: one written here, and diffusers' own."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from models.settings.vae import VAESettings
from models.vae.causal_vae import CausalVAE
from models.vae.from_2d import load_2d

GROUPS, WIDTHS, Z, BLOCKS = 4, (8, 16, 16, 16), 4, 1
SMALL = dict(width=8, multipliers=(1, 2, 2, 2), encoder_blocks=BLOCKS, decoder_blocks=BLOCKS + 1, groups=GROUPS)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(7)
        yield


def made(**changes) -> CausalVAE:
    return CausalVAE(VAESettings(**{**SMALL, **changes})).eval()


@pytest.fixture(scope="module")
def weights_2d() -> dict[str, torch.Tensor]:
    """Random weights by the names of an AutoencoderKL in diffusers."""
    generator = torch.Generator().manual_seed(11)
    found: dict[str, torch.Tensor] = {}

    def layer(name, *shape):
        fan = torch.tensor(shape[1:]).prod().sqrt() if len(shape) > 1 else 1
        found[f"{name}.weight"] = torch.randn(shape, generator=generator) / fan
        found[f"{name}.bias"] = torch.randn(shape[0], generator=generator) * 0.3

    def block(name, inputs, outputs):
        for each, channels in (("norm1", inputs), ("norm2", outputs)):
            layer(f"{name}.{each}", channels)
        layer(f"{name}.conv1", outputs, inputs, 3, 3)
        layer(f"{name}.conv2", outputs, outputs, 3, 3)
        if inputs != outputs:
            layer(f"{name}.conv_shortcut", outputs, inputs, 1, 1)

    def middle(name):
        for number in range(2):
            block(f"{name}.resnets.{number}", WIDTHS[-1], WIDTHS[-1])
        layer(f"{name}.attentions.0.group_norm", WIDTHS[-1])
        for each in ("to_q", "to_k", "to_v", "to_out.0"):
            layer(f"{name}.attentions.0.{each}", WIDTHS[-1], WIDTHS[-1])

    layer("encoder.conv_in", WIDTHS[0], 3, 3, 3)
    for level, (before, width) in enumerate(pairwise((WIDTHS[0], *WIDTHS))):
        block(f"encoder.down_blocks.{level}.resnets.0", before, width)
        if level < 3:
            layer(f"encoder.down_blocks.{level}.downsamplers.0.conv", width, width, 3, 3)
    middle("encoder.mid_block")
    layer("encoder.conv_norm_out", WIDTHS[-1])
    layer("encoder.conv_out", 2 * Z, WIDTHS[-1], 3, 3)
    layer("quant_conv", 2 * Z, 2 * Z, 1, 1)
    layer("post_quant_conv", Z, Z, 1, 1)
    layer("decoder.conv_in", WIDTHS[-1], Z, 3, 3)
    middle("decoder.mid_block")
    for level, (before, width) in enumerate(pairwise((WIDTHS[-1], *reversed(WIDTHS)))):
        for number in range(BLOCKS + 1):
            block(f"decoder.up_blocks.{level}.resnets.{number}", width if number else before, width)
        if level < 3:
            layer(f"decoder.up_blocks.{level}.upsamplers.0.conv", width, width, 3, 3)
    layer("decoder.conv_norm_out", WIDTHS[0])
    layer("decoder.conv_out", 3, WIDTHS[0], 3, 3)
    return found


class In2D:
    """The 2D VAE, from the description of the latent diffusion paper's code, as plain functions of its weights."""

    def __init__(self, weights):
        self.weights = weights

    def of(self, name):
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def conv(self, name, x):
        weight, bias = self.of(name)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    def norm(self, name, x):
        return F.group_norm(x, GROUPS, *self.of(name), eps=1e-6)

    def block(self, name, x):
        y = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)))
        y = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", y)))
        return y + (self.conv(f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.weight" in self.weights else x)

    def middle(self, name, x):
        x = self.block(f"{name}.resnets.0", x)
        tokens = self.norm(f"{name}.attentions.0.group_norm", x).flatten(2).transpose(1, 2)  # (B, pixels, C)
        query, key, value = (F.linear(tokens, *self.of(f"{name}.attentions.0.to_{each}")) for each in "qkv")
        scores = (query @ key.transpose(1, 2) / x.shape[1] ** 0.5).softmax(dim=-1)
        mixed = F.linear(scores @ value, *self.of(f"{name}.attentions.0.to_out.0"))
        return self.block(f"{name}.resnets.1", x + mixed.transpose(1, 2).view_as(x))

    def encode(self, image):
        """(B, 3, H, W) to mean and logvar side by side, (B, 2Z, H / 8, W / 8)."""
        x = self.conv("encoder.conv_in", image)
        for level in range(4):
            x = self.block(f"encoder.down_blocks.{level}.resnets.0", x)
            if level < 3:
                name = f"encoder.down_blocks.{level}.downsamplers.0.conv"
                x = F.conv2d(F.pad(x, (0, 1, 0, 1)), *self.of(name), stride=2)
        x = F.silu(self.norm("encoder.conv_norm_out", self.middle("encoder.mid_block", x)))
        return self.conv("quant_conv", self.conv("encoder.conv_out", x))

    def decode(self, latent):
        x = self.middle("decoder.mid_block", self.conv("decoder.conv_in", self.conv("post_quant_conv", latent)))
        for level in range(4):
            for number in range(BLOCKS + 1):
                x = self.block(f"decoder.up_blocks.{level}.resnets.{number}", x)
            if level < 3:
                name = f"decoder.up_blocks.{level}.upsamplers.0.conv"
                x = self.conv(name, F.interpolate(x, scale_factor=2.0))
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.conv_norm_out", x)))


def moments(vae: CausalVAE, clip: torch.Tensor) -> torch.Tensor:
    found = vae.encode(clip)
    return torch.cat([found.mean, found.logvar], dim=1)


@pytest.mark.parametrize("variant", [1, 2, 3, 4])
def test_from_the_tail_latent_i_is_the_2d_latent_of_frame_4i(variant, weights_2d):
    vae, flat = made(variant=variant), In2D(weights_2d)
    assert load_2d(vae, weights_2d) == []
    clip = torch.rand(2, 3, 9, 16, 24) * 2 - 1
    expected = torch.stack([flat.encode(clip[:, :, 4 * latent]) for latent in range(3)], dim=2)
    assert expected.std() > 0.1
    assert torch.allclose(moments(vae, clip), expected, atol=1e-5)
    latents = expected[:, :Z]
    decoded = vae.decode(latents)
    for latent in range(3):
        assert torch.allclose(decoded[:, :, 4 * latent], flat.decode(latents[:, :, latent]), atol=1e-4)


def test_from_the_average_clips_that_stand_still_are_seen_as_images_are(weights_2d):
    vae, flat = made(variant=1), In2D(weights_2d)
    load_2d(vae, weights_2d, how="average")
    still = (torch.rand(1, 3, 1, 16, 16) * 2 - 1).expand(-1, -1, 9, -1, -1)
    expected = flat.encode(still[:, :, 0])
    for latent in range(3):
        assert torch.allclose(moments(vae, still)[:, :, latent], expected, atol=1e-4)
    kernel = vae.encoder.conv_in.weight
    assert torch.allclose(kernel.sum(2), weights_2d["encoder.conv_in.weight"], atol=1e-6)
    assert torch.equal(kernel[:, :, 0], kernel[:, :, 2])


def test_older_names_and_attention_as_convolutions_are_the_same_weights(weights_2d, tmp_path):
    older = {}
    for name, tensor in weights_2d.items():
        for now, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            if now in name:
                tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
                name = name.replace(now, before)
        older[name] = tensor.contiguous()
    save_file(older, tmp_path / "older.safetensors")
    one, two = made(), made()
    load_2d(one, weights_2d)
    load_2d(two, tmp_path / "older.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("changes", [dict(channels=8), dict(quantizer="lfq", channels=5)])
def test_other_latents_leave_only_the_layers_next_to_them_as_they_were(changes, weights_2d):
    vae = made(**changes)
    before = vae.quant_conv.weight.clone()
    assert sorted(load_2d(vae, weights_2d)) == ["decoder.conv_in", "encoder.conv_out", "post_quant_conv", "quant_conv"]
    assert torch.equal(vae.quant_conv.weight, before)
    assert torch.equal(vae.decoder.conv_out.weight[:, :, -1], weights_2d["decoder.conv_out.weight"])


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(width=16), "encoder.conv_in takes a weight of \\(16, 3, 3, 3\\), the 2D VAE has \\(8, 3, 3, 3\\)"),
        (dict(norm="rms"), "PixelRMSNorm: a 2D VAE has group norms"),
        (dict(encoder_blocks=2), "the 2D VAE has no encoder.down_blocks.0.resnets.1.norm1.weight"),
        (dict(decoder_blocks=1), "decoder.up_blocks.0.resnets.1.norm1 has no counterpart here"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_nothing_is_changed(changes, message, weights_2d):
    vae = made(**changes)
    before = [weight.clone() for weight in vae.parameters()]
    with pytest.raises(ValueError, match=message):
        load_2d(vae, weights_2d)
    assert all(torch.equal(one, two) for one, two in zip(before, vae.parameters(), strict=True))


def test_what_is_no_2d_vae_is_refused_by_name(tmp_path, weights_2d):
    (tmp_path / "text.safetensors").write_text("not weights")
    for path in (tmp_path / "text.safetensors", tmp_path / "none.safetensors"):
        with pytest.raises(ValueError, match=f"{path.name} can't be read as safetensors"):
            load_2d(made(), path)
    with pytest.raises(ValueError, match="the 2D VAE has no encoder\\.conv_in\\.weight"):
        load_2d(made(), {"linear.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="unknown initialisation 'centre'"):
        load_2d(made(), weights_2d, how="centre")


@pytest.mark.slow
def test_diffusers_autoencoder_gives_the_same_latents_and_images():
    diffusers = pytest.importorskip("diffusers")
    flat = diffusers.AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=WIDTHS,
        layers_per_block=BLOCKS,
        latent_channels=Z,
        norm_num_groups=GROUPS,
    ).eval()
    vae = made()
    assert load_2d(vae, flat.state_dict()) == []
    clip = torch.rand(1, 3, 5, 16, 24) * 2 - 1
    for latent in range(2):
        expected = flat.encode(clip[:, :, 4 * latent]).latent_dist
        assert torch.allclose(vae.encode(clip).mean[:, :, latent], expected.mean, atol=1e-5)
        assert torch.allclose(vae.encode(clip).logvar[:, :, latent], expected.logvar, atol=1e-5)
    image = flat.decode(expected.mean).sample
    assert torch.allclose(vae.decode(expected.mean[:, :, None])[:, :, 0], image, atol=1e-5)
