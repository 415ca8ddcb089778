"""A VAE is read from disk as it was saved, and every change to the files is noticed."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.saved.vae_files import CONFIG, WEIGHTS, fingerprint, load, save, statistics
from models.settings.vae import VAESettings
from models.vae.causal_vae import CausalVAE
from tests.full_disk import files_of_at_most

SMALL = dict(width=4, multipliers=(1, 1, 1), encoder_blocks=1, decoder_blocks=1, groups=2)
BOTTLENECKS = {
    "kl": {},
    "vq": dict(quantizer="vq", quantizer_options={"codes": 16}),
    "lfq": dict(quantizer="lfq"),
    "fsq": dict(quantizer="fsq", quantizer_options={"levels": (8, 5, 5, 4)}),
}


def made(**changes) -> CausalVAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CausalVAE(VAESettings(**{**SMALL, **changes})).eval()


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_vae_comes_back_as_it_was(bottleneck, dtype, tmp_path):
    vae = made(**BOTTLENECKS[bottleneck]).to(dtype)
    save(vae, tmp_path / "vae")
    state = torch.get_rng_state()
    back = load(tmp_path / "vae")
    assert torch.equal(torch.get_rng_state(), state)
    assert back.settings == vae.settings
    assert not back.training
    assert fingerprint(back) == fingerprint(vae)
    assert [name for name, _ in back.named_buffers()] == [name for name, _ in vae.named_buffers()]
    kept = [*vae.parameters(), *vae.buffers()], [*back.parameters(), *back.buffers()]
    assert all(torch.equal(one, two) and one.dtype == two.dtype for one, two in zip(*kept, strict=True))
    with torch.random.fork_rng(), torch.inference_mode():
        latents = torch.randn(1, 4, 2, 1, 1)
        assert torch.allclose(vae.decode(latents), back.decode(latents), atol=1e-2 if dtype == torch.bfloat16 else 1e-5)
    assert sorted(path.name for path in (tmp_path / "vae").iterdir()) == [CONFIG, WEIGHTS]


def test_the_fingerprint_is_of_every_weight_every_setting_and_nothing_else():
    base = fingerprint(made())
    assert fingerprint(made()) == base
    assert fingerprint(made().train()) == base
    found = {base}
    for changes in (dict(variant=3), dict(groups=4), dict(quantizer="vq"), dict(norm="rms")):
        found.add(fingerprint(made(**changes)))
    found.add(fingerprint(made().to(torch.bfloat16)))
    vae = made()
    for name, tensor in vae.state_dict().items():  # one bit of one weight of each layer
        bits = tensor.view(-1)[:1].view(torch.int32)
        bits ^= 1
        found.add(fingerprint(vae))
        assert len(found) > 6, name
    assert len(found) == 6 + len(vae.state_dict())


def test_changed_weights_or_settings_are_refused_by_name(tmp_path):
    save(made(), tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    weights["encoder.conv_in.bias"][0] += 1e-6
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=f"{WEIGHTS} or {CONFIG} was changed"):
        load(tmp_path)
    save(made(), tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    config["settings"]["groups"] = 4
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"{WEIGHTS} or {CONFIG} was changed"):
        load(tmp_path)


def test_a_folder_that_holds_no_vae_is_refused_in_one_line(tmp_path):
    def refusal() -> str:
        with pytest.raises(ValueError) as error:
            load(tmp_path)
        assert "\n" not in str(error.value)
        assert str(tmp_path) in str(error.value)
        return str(error.value)

    assert "is no VAE of clipmill: config.json can't be read" in refusal()
    for text in ("{", "[]", '{"kind": "another"}'):
        (tmp_path / CONFIG).write_text(text)
        assert "is no VAE of clipmill" in refusal()
    save(made(), tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    for settings, said in (({"size": 3}, "unknown setting size"), ({"quantizer": "none"}, "quantizer 'none': there")):
        (tmp_path / CONFIG).write_text(json.dumps({**config, "settings": settings}))
        assert f"describes a VAE that can't be built: {said}" in refusal()
    (tmp_path / CONFIG).write_text(json.dumps({**config, "settings": {**config["settings"], "width": 8}}))
    assert f"{WEIGHTS} is not what {CONFIG} describes" in refusal()
    (tmp_path / CONFIG).write_text(json.dumps(config))
    for damage in (b"not weights", None):
        (tmp_path / WEIGHTS).unlink()
        if damage:
            (tmp_path / WEIGHTS).write_bytes(damage)
        assert f"{WEIGHTS} is not what {CONFIG} describes" in refusal()


def test_a_save_that_was_cut_short_leaves_no_folder_that_loads(tmp_path):
    save(made(), tmp_path)
    with files_of_at_most(1000), pytest.raises(OSError, match=rf"{WEIGHTS} can't be written .*too large"):
        save(made(variant=1), tmp_path)
    with pytest.raises(ValueError, match="can't be read"):
        load(tmp_path)


def test_the_statistics_of_latents_are_kept_beside_the_weights_and_are_no_part_of_the_fingerprint(tmp_path):
    vae = made()
    save(vae, tmp_path)
    assert statistics(tmp_path) is None
    mean, std = (0.25, -1.0, 0.0, 3.5), (1.0, 0.1, 2.0, 7.0)
    save(vae, tmp_path, latents_mean=list(mean), latents_std=torch.tensor(std).double().numpy())
    assert statistics(tmp_path)[0] == mean
    assert statistics(tmp_path)[1] == pytest.approx(std)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["latents_mean"] == list(mean)
    assert config["fingerprint"] == fingerprint(load(tmp_path)) == fingerprint(vae)


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ([0.0] * 3, [1.0] * 4, "3 numbers in latents_mean for 4 channels"),
        ([0.0] * 4, [1.0] * 5, "5 numbers in latents_std for 4 channels"),
        ([0.0] * 4, [1.0, 1.0, 0.0, 1.0], "latents_std, which no latents have"),
        ([0.0, float("nan"), 0.0, 0.0], [1.0] * 4, "latents_mean, which no latents have"),
        (None, [1.0] * 4, "latents_mean None, not one number for each of 4 channels"),
        ([0.0] * 4, "abcd", "latents_std 'abcd', not one number"),
    ],
)
def test_statistics_that_are_none_are_neither_saved_nor_read(mean, std, said, tmp_path):
    save(made(), tmp_path)
    before = (tmp_path / CONFIG).read_text()
    with pytest.raises(ValueError, match=said):
        save(made(), tmp_path, latents_mean=mean, latents_std=std)
    assert (tmp_path / CONFIG).read_text() == before  # what was there is as it was
    (tmp_path / CONFIG).write_text(json.dumps({**json.loads(before), "latents_mean": mean, "latents_std": std}))
    with pytest.raises(ValueError, match=said) as error:
        statistics(tmp_path)
    assert str(tmp_path) in str(error.value)
