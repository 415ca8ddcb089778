"""Whether the networks compute on this device what they compute in float64 on a CPU: outputs, losses and gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gpu.report import Report
from models.settings.transformers import sized, sized_tokens
from models.settings.vae import sized as sized_vae
from models.transformers.dit import DiT
from models.transformers.token_transformer import TokenTransformer
from models.vae.causal_vae import CausalVAE
from train.objectives.objective import Objective

EXACT, HALF = 1e-4, 2e-2  # greatest relative error in float32, and in bfloat16
TEXT, DIM, CONDITIONS, CODES = 13, 32, ("motion", "fps"), 64
Loss = Callable[[nn.Module, torch.device, torch.dtype], Tensor]


def run(report: Report, device: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    vae = randomized(CausalVAE(sized_vae("published", width=32) if device == "cuda" else sized_vae("debug")))
    report.case("vae", lambda: compared(vae, vae_loss, device))
    report.case("vae bf16", lambda: compared(vae, vae_loss, device, torch.bfloat16))
    report.case("vae streamed", lambda: streamed(vae, device))
    report.case("vae channels last", lambda: channels_last(vae, device))
    size = "S" if device == "cuda" else "debug"
    for name, changes, options in (
        ("dit", {}, {}),
        ("dit masks", {}, {"per_latent": True}),
        ("dit kept tokens", {"mixer_depth": 2, "mask_ratio": 0.5}, {}),
        ("dit image", {}, {"frames": 1}),
        ("dit factorised", {"attention": "factorised"}, {}),
        ("dit factorised image", {"attention": "factorised"}, {"frames": 1}),
    ):
        network = dit(size, **changes)
        report.case(name, lambda network=network, options=options: compared(network, dit_loss(**options), device))
        if name in ("dit", "dit kept tokens"):
            work = lambda network=network: compared(network, dit_loss(), device, torch.bfloat16)  # noqa: E731
            report.case(f"{name} bf16", work)
    maskless = dit(size)
    report.case("dit text maskless", lambda: without_mask(maskless, device))
    tokens = randomized(TokenTransformer(sized_tokens(size, CODES, text_dim=DIM, conditions=CONDITIONS)))
    report.case("tokens", lambda: compared(tokens, tokens_loss, device))
    plain = dit(size)
    report.case("dit compiled", lambda: compiled(plain, dit_loss(), device), least=15)
    report.case("vae compiled", lambda: compiled(vae, vae_loss, device), least=15)


def dit(size: str, **changes: Any) -> nn.Module:
    return randomized(DiT(sized(size, channels=4, text_dim=DIM, conditions=CONDITIONS, **changes)))


def randomized(network: nn.Module) -> nn.Module:
    """With gates of 0, as at the start, most of a network would not count."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def vae_loss(vae: nn.Module, device: torch.device, dtype: torch.dtype) -> Tensor:
    video = drawn(1, 3, 9, 64, 64).clamp(-1, 1).to(device, dtype)
    decoded = vae.eval().decode(vae.encode(video).mean)  # type: ignore[operator]
    return (decoded - video).to(dtype).square().mean()


def dit_loss(frames: int = 3, per_latent: bool = False) -> Loss:
    def loss(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Tensor:
        clean, noise = (drawn(2, 4, frames, 16, 16, seed=seed).to(device, dtype) for seed in (1, 2))
        text, conditions = drawn(2, TEXT, DIM, seed=3).to(device, dtype), drawn(2, 2, seed=4).to(device, dtype)
        mask = torch.arange(TEXT, device=device) < torch.tensor([[5], [TEXT]], device=device)
        t = torch.tensor([0.3, 0.8], dtype=dtype, device=device)
        if per_latent:
            t = t.view(2, 1, 1, 1).repeat(1, frames, 16, 16)
            t[:, 0] = 0  # the first latent is given
        objective, kept = Objective(), None
        kept = network.draw_kept(clean.shape, torch.Generator().manual_seed(5))  # type: ignore[operator]
        kept = kept if kept is None else kept.to(device)
        lost = None if kept is None else network.dropped_mask(kept, clean.shape)  # type: ignore[operator]
        noised = objective.noised(clean, noise, t)
        output = network(noised, t, text=text, text_mask=mask, conditions=conditions, kept=kept)
        return objective.loss(output, clean, noise, t, lost).mean()

    return loss


def tokens_loss(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Tensor:
    tokens = torch.randint(CODES, (2, 3, 8, 8), generator=torch.Generator().manual_seed(6)).to(device)
    text, conditions = drawn(2, TEXT, DIM, seed=3).to(device, dtype), drawn(2, 2, seed=4).to(device, dtype)
    return network.loss(network(tokens, text=text, conditions=conditions), tokens).mean()  # type: ignore[operator]


def measured(
    network: nn.Module, loss: Loss, device: str, dtype: torch.dtype, half: bool = False
) -> tuple[float, float]:
    """Loss and norm of the gradient of a copy of the network. `half`: under autocast, as in training."""
    own = copy.deepcopy(network).to(device, dtype)
    with torch.autocast(device, torch.bfloat16, enabled=half):
        found = loss(own, torch.device(device), dtype)
    return with_gradient(own, found)


def with_gradient(network: nn.Module, loss: Tensor) -> tuple[float, float]:
    """A loss, and the norm of its gradient in float64."""
    loss.backward()
    gradients = [parameter.grad.double() for parameter in network.parameters() if parameter.grad is not None]
    return loss.item(), math.sqrt(sum(each.square().sum().item() for each in gradients))


def compared(network: nn.Module, loss: Loss, device: str, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    half = dtype == torch.bfloat16
    wanted = measured(network, loss, "cpu", torch.float64)
    found = measured(network, loss, device, torch.float32, half)
    return judged(found, wanted, HALF if half else EXACT)


def without_mask(network: nn.Module, device: str) -> dict[str, Any]:
    """The form of cross-attention that needs no mask, against the masked one in float64."""
    wanted = measured(network, dit_loss(), "cpu", torch.float64)
    for block in network.blocks:  # type: ignore[union-attr]
        block.cross.maskless = True  # type: ignore[union-attr]
    return judged(measured(network, dit_loss(), device, torch.float32), wanted, EXACT)


def compiled(network: nn.Module, loss: Loss, device: str) -> dict[str, Any]:
    eager = measured(network, loss, device, torch.float32)
    own = copy.deepcopy(network)
    blocks = [own.encoder, own.decoder] if isinstance(own, CausalVAE) else list(own.blocks)  # type: ignore[arg-type]
    for block in blocks:
        # A CPU traces and differentiates the same graphs, but its compiler takes minutes.
        block.compile(dynamic=False, backend="inductor" if device == "cuda" else "aot_eager")
    own = own.to(device)
    return judged(with_gradient(own, loss(own, torch.device(device), torch.float32)), eager, EXACT)


def judged(found: tuple[float, float], wanted: tuple[float, float], limit: float) -> dict[str, Any]:
    errors = [abs(a - b) / abs(b) for a, b in zip(found, wanted, strict=True)]
    return {
        "loss": found[0], "gradient_norm": found[1], "wanted": list(wanted), "errors": errors, "limit": limit,
        "ok": all(error <= limit for error in errors),
        "shown": f"loss off by {errors[0]:.1e}, gradient by {errors[1]:.1e} (limit {limit:.0e})",
    }  # fmt: skip


@torch.inference_mode()
def streamed(vae: nn.Module, device: str) -> dict[str, Any]:
    """A clip in chunks against the whole clip, both on the device."""
    own = copy.deepcopy(vae).to(device).eval()
    video = drawn(1, 3, 33, 64, 64, seed=7).clamp(-1, 1).float().to(device)
    whole, parts = own.encode(video).mean, own.encode(video, chunk=8).mean  # type: ignore[operator]
    videos = own.decode(whole), own.decode(whole, chunk=2)  # type: ignore[operator]
    errors = [_relative(parts, whole), _relative(videos[1], videos[0])]
    shown = f"latents off by {errors[0]:.1e}, video by {errors[1]:.1e} (limit {EXACT:.0e})"
    return {"errors": errors, "limit": EXACT, "ok": max(errors) <= EXACT, "shown": shown}


@torch.inference_mode()
def channels_last(vae: nn.Module, device: str) -> dict[str, Any]:
    """How many convolutions see their input in channels-last order. Anything else is transposed by cuDNN, twice."""
    own, seen = copy.deepcopy(vae).to(device).eval(), {True: 0, False: 0}

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[inputs[0].is_contiguous(memory_format=torch.channels_last_3d)] += 1

    for layer in own.modules():
        if isinstance(layer, nn.Conv3d):
            layer.register_forward_pre_hook(look)
    own.decode(own.encode(drawn(1, 3, 9, 64, 64).float().to(device)).mean)  # type: ignore[operator]
    # On a CPU the VAE has no need of it.
    return {
        "inputs": seen,
        "ok": device != "cuda" or not seen[False],
        "shown": f"{seen[True]} inputs, {seen[False]} others",
    }


def _relative(found: Tensor, wanted: Tensor) -> float:
    return float(((found - wanted).double().norm() / wanted.double().norm()).item())
