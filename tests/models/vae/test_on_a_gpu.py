"""What a GPU's convolutions get, seen without a GPU: channels-last tensors, on one device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.settings.vae import SIZES, VAESettings
from models.vae.causal_vae import CausalVAE
from models.vae.layers.causal_ops import Stream
from models.vae.layers.quantizers import VectorQuantizer
from tests.models.vae.fake_gpu import Seen, fake_gpu, in_channels_last, inductor_graphs, moved
from train.config.vae import LossConfig
from train.vae.losses.discriminator import PatchDiscriminator, discriminator_loss
from train.vae.losses.losses import VAELosses, perceptual_term

SMALL = dict(width=8, multipliers=(1, 2, 2, 2), encoder_blocks=1, decoder_blocks=1, groups=4)
QUANTIZERS = {"kl": {}, "vq": {"codes": 16}, "lfq": {}, "fsq": {"levels": (8, 5, 5, 4)}}
NETWORKS = {
    **{f"variant {variant} {norm}": dict(SMALL, variant=variant, norm=norm)
       for variant in (1, 2, 3, 4) for norm in ("group", "rms")},
    **{name: dict(SMALL, quantizer=name, quantizer_options=options) for name, options in QUANTIZERS.items()},
    "shortcut": dict(SMALL, shortcut=True),
    **{name: settings.to_dict() for name, settings in SIZES.items()},
}  # fmt: skip


def planned(**settings) -> CausalVAE:
    """A VAE without numbers, in the memory format that training and encoding give it for a GPU."""
    with torch.device("meta"):
        return CausalVAE(VAESettings.from_dict(settings)).to(memory_format=torch.channels_last_3d)


def learning(vae: CausalVAE) -> CausalVAE:
    """In training mode, but for a codebook, which counts its codes: tensors without numbers can't be counted."""
    vae.train()
    vae.quantizer.train(not isinstance(vae.quantizer, VectorQuantizer))
    return vae


def other_layouts(seen: Seen) -> list[tuple[torch.Size, torch.Size]]:
    found = [(x.shape, w.shape) for x, w in seen.convolutions if not (in_channels_last(x) and in_channels_last(w))]
    assert all(x.device.type == w.device.type == "cuda" for x, w in seen.convolutions)
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_every_convolution_gets_channels_last_tensors(name):
    vae = planned(**NETWORKS[name])
    with fake_gpu():
        vae, clip = moved(vae), torch.empty(2, 3, 9, 32, 48, device="cuda")
        layers = sum(isinstance(layer, nn.Conv3d) for layer in vae.modules())
        with torch.no_grad(), Seen() as seen:
            latents = vae.eval().encode(clip).mean
            vae.decode(latents)
        assert len(seen.convolutions) == layers and other_layouts(seen) == []
        with torch.no_grad(), Seen() as seen:  # pieces, with what is kept between them
            stream, back = Stream(), Stream()
            for piece in clip.split([5, 4], dim=2):
                vae._features(piece, stream)
            for piece in latents.split([2, 1], dim=2):
                vae._video(piece, back)
        assert len(seen.convolutions) == 2 * layers and other_layouts(seen) == []
        for video in (clip, clip[:, :, :1]):
            with Seen() as seen:
                learning(vae)(video)
            assert len(seen.convolutions) == layers and other_layouts(seen) == []


def test_the_group_norm_of_torch_would_leave_channels_last(monkeypatch):
    """What the tests above would see."""
    from models.vae.layers.causal_ops import FrameGroupNorm

    def before(self, x):
        frames = x.transpose(1, 2).flatten(0, 1)
        normed = torch.group_norm(frames, self.num_groups, self.weight, self.bias, self.eps)
        return normed.unflatten(0, (len(x), -1)).transpose(1, 2)

    monkeypatch.setattr(FrameGroupNorm, "forward", before)
    vae = planned(**SIZES["published"].to_dict())
    with fake_gpu():
        vae = moved(vae)
        with torch.no_grad(), Seen() as seen:
            vae.encode(torch.empty(1, 3, 9, 32, 32, device="cuda"))
    assert len(seen.convolutions) == 28 and len(other_layouts(seen)) > 20


def test_what_is_compiled_keeps_channels_last_in_one_graph_for_each_shape():
    """With the decompositions of Inductor, which then generates code for tensors of these strides."""
    graphs = []

    def compiled(graph, _):
        nodes = [node for node in graph.graph.nodes if "convolution" in str(node.target)]
        graphs.append([all(in_channels_last(node.args[i].meta["val"]) for i in (0, 1)) for node in nodes])
        return graph

    backend = inductor_graphs(compiled)
    vae = planned(**SMALL).eval().requires_grad_(False)
    with fake_gpu():
        vae = moved(vae)
        layers = sum(isinstance(layer, nn.Conv3d) for layer in vae.encoder.modules())
        vae.encoder.compile(backend=backend, dynamic=False, fullgraph=True)
        with torch.no_grad():
            for frames in (9, 17, 9, 17):
                vae.encode(torch.empty(1, 3, frames, 32, 32, device="cuda"))
    assert graphs == [[True] * layers] * 2


@pytest.mark.parametrize(("pixels", "perceptual"), [("l1", "gradients"), ("mse", "none")])
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_no_loss_meets_a_tensor_on_another_device(quantizer, pixels, perceptual):
    loss = LossConfig(pixels=pixels, perceptual=perceptual)
    with torch.device("meta"):
        critic = PatchDiscriminator(4, 2)
    vae = planned(**NETWORKS[quantizer])
    with fake_gpu():
        vae, critic, device = learning(moved(vae)), moved(critic), torch.device("cuda")
        video = torch.empty(2, 3, 5, 32, 32, device=device)
        back, passed = vae(video)
        losses = VAELosses(loss, quantizer != "kl", perceptual_term(loss, device)[0])
        total, terms = losses.terms(video, back, passed, vae.decoder.conv_out.weight, None)
        hinge = discriminator_loss(critic(video), critic(back))
        assert {each.device.type for each in (total, hinge, *terms.values())} == {"cuda"}
        assert {each.dtype for each in (total, hinge, *terms.values())} == {torch.float32}
        assert vae.decode(vae.eval().encode(video).mean).device.type == "cuda"
