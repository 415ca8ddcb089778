"""A VAE is found by its path or name, known by its weights and config, and refused in one line where it is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.saved.vae_files import save
from stages.base import SettingsError
from stages.latent_coders.describe import describe_coder
from stages.latent_coders.load import load_coder
from tests.stages.model_hub import Hub
from tests.stages.vaes import EVERY, folder, made, own, saved, video
from tests.torch_state import one_thread

__all__ = ["one_thread"]

WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_a_vae_is_described_without_torch_and_in_a_moment():
    code = "import json, sys\nfrom stages.latent_coders.describe import describe_coder\n"
    code += f"found = [describe_coder(folder).fingerprint for folder in {[str(folder(n)) for n in EVERY]!r}]\n"
    code += (
        "heavy = sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules))\nprint(json.dumps([found, heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, heavy = json.loads(done.stdout)
    assert heavy == []
    assert found == [describe_coder(str(folder(name))).fingerprint for name in EVERY]
    assert len(set(found)) == len(EVERY)


@pytest.mark.parametrize("name", ["wan", "ltx", "stable diffusion"])
def test_the_fingerprint_is_of_weights_and_config_wherever_they_lie(name, tmp_path):
    wanted = describe_coder(str(folder(name))).fingerprint
    made(name).save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    assert describe_coder(str(tmp_path / "parts")).fingerprint == wanted
    parts, clip = load_coder(str(tmp_path / "parts")), video(describe_coder(str(folder(name))))
    torch.testing.assert_close(parts.encode(clip).mean, load_coder(str(folder(name))).encode(clip).mean)

    whole = saved(name, tmp_path / "whole")
    config = json.loads((whole / "config.json").read_text())
    anew = dict(reversed(config.items())) | {"_diffusers_version": "0.1", "_name_or_path": "elsewhere"}
    (whole / "config.json").write_text(json.dumps(anew))
    weights = load_file(whole / WEIGHTS)
    save_file(dict(reversed(weights.items())), whole / WEIGHTS)
    assert describe_coder(str(whole)).fingerprint == wanted

    found = {wanted}
    for each in sorted(weights)[:: max(1, len(weights) // 6)]:  # one bit of one weight of some layers
        weights[each].view(-1)[:1].view(torch.int32).bitwise_xor_(1)
        save_file(weights, whole / WEIGHTS)
        found.add(describe_coder(str(whole)).fingerprint)
    (whole / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.7}))
    found.add(describe_coder(str(whole)).fingerprint)
    assert len(found) == 2 + len(sorted(weights)[:: max(1, len(weights) // 6)])


def test_a_fingerprint_is_taken_once_while_the_files_keep_their_size_and_time_of_change(tmp_path):
    weights = saved("wan", tmp_path) / WEIGHTS
    wanted, stat = describe_coder(str(tmp_path)).fingerprint, weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert describe_coder(str(tmp_path)).fingerprint == wanted
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    assert describe_coder(str(tmp_path)).fingerprint != wanted


def test_a_vae_keeps_its_place_when_the_working_folder_changes(monkeypatch, tmp_path):
    saved("wan", tmp_path / "here" / "vae")
    monkeypatch.chdir(tmp_path / "here")
    info = describe_coder("vae")
    monkeypatch.chdir(tmp_path)
    assert load_coder(info.path).info == info


def test_the_vae_of_a_whole_pipeline_is_found_in_it(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    saved("wan", tmp_path / "vae")
    for subfolder in (None, "vae"):
        info = describe_coder(str(tmp_path), subfolder)
        assert info.fingerprint == describe_coder(str(folder("wan"))).fingerprint
        assert info.path == str(tmp_path / "vae")
    assert load_coder(str(tmp_path)).encode(video(info)).mean.isfinite().all()


def test_a_vae_of_the_hub_is_taken_from_its_cache(tmp_path, monkeypatch):
    import huggingface_hub.constants as hub

    commit, place = "a" * 40, tmp_path / "models--someone--a-pipeline"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    saved("wan", place / "snapshots" / commit / "vae")
    (place / "snapshots" / commit / "model_index.json").write_text("{}")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    for revision in (None, "main", commit):
        info = describe_coder("someone/a-pipeline", revision=revision)
        assert info.fingerprint == describe_coder(str(folder("wan"))).fingerprint
    with pytest.raises(SettingsError, match="the hub can't be asked"):
        describe_coder("someone/a-pipeline", revision="another")
    with pytest.raises(SettingsError, match="the hub can't be asked"):
        describe_coder("someone/else")


def test_of_a_pipeline_on_the_hub_its_vae_alone_is_fetched_and_once(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub", tmp_path / "cache", monkeypatch)
    made("wan").save_pretrained(hub.folder / "vae", max_shard_size="20KB")
    made("stable diffusion").save_pretrained(hub.folder / "unet")
    (hub.folder / "model_index.json").write_text("{}")
    info = describe_coder("someone/a-pipeline")
    assert info.fingerprint == describe_coder(str(folder("wan"))).fingerprint
    assert info.path == str(tmp_path / "cache" / hub.commit / "vae")
    assert not any(name.endswith("safetensors") and name.startswith("unet") for name in hub.asked)
    hub.asked.clear()
    assert describe_coder("someone/a-pipeline") == info
    assert load_coder("someone/a-pipeline").info == info
    assert hub.asked == []
    lost = sorted(Path(info.path).glob("*.safetensors"))[1]  # a download that was cut short
    lost.unlink()
    assert describe_coder("someone/a-pipeline") == info
    assert f"vae/{lost.name}" in hub.asked


def refusal(model: Path | str, load: bool = False, **options) -> str:
    with pytest.raises(SettingsError) as error:
        (load_coder if load else describe_coder)(str(model), **options)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    return str(error.value)


def test_what_is_no_vae_is_refused_in_one_line(tmp_path):
    assert "no such folder" in refusal(tmp_path / "none")
    assert "is a file" in refusal(folder("wan") / "config.json")
    assert "holds no config.json: it is no VAE" in refusal(tmp_path)
    assert "subfolder 'unet', holds no config.json" in refusal(folder("wan"), subfolder="unet")
    for text, said in (
        ("{", "can't be read"),
        ("[]", "no JSON object"),
        ('{"model_type": "bert"}', "names no class of VAEs; known are AutoencoderKLWan"),
        ('{"_class_name": "UNet2DModel"}', "names the class 'UNet2DModel'; known are AutoencoderKLWan"),
    ):
        (tmp_path / "config.json").write_text(text)
        (tmp_path / "model.safetensors").write_bytes((folder("kl") / "model.safetensors").read_bytes())
        assert said in refusal(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").write_bytes((folder("wan") / "config.json").read_bytes())
    assert "holds no weights" in refusal(tmp_path)
    weights = (folder("wan") / WEIGHTS).read_bytes()
    for damaged in (b"", b"\xff" * 20, weights[:-7], weights[:100]):
        (tmp_path / WEIGHTS).write_bytes(damaged)
        assert "is no whole safetensors file" in refusal(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(weights)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"latents_std": [1.0]}))
    assert "for 4 channels" in refusal(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"z_dim": "four"}))
    assert "can't be a VAE" in refusal(tmp_path)


def test_weights_that_do_not_fit_are_refused_when_they_are_loaded(tmp_path):
    saved("wan", tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    gone = sorted(weights)[0]
    save_file({name: weights[name] for name in weights if name != gone}, tmp_path / WEIGHTS)
    assert f"lacks 1 of its weights, {gone}" in refusal(tmp_path, load=True)
    save_file({**weights, gone: torch.zeros(3)}, tmp_path / WEIGHTS)
    assert "can't be loaded as AutoencoderKLWan" in refusal(tmp_path, load=True)
    assert "no GPU" in refusal(folder("wan"), load=True, device="cuda") or torch.cuda.is_available()


def test_our_own_vae_with_a_changed_weight_is_refused_before_it_is_loaded(tmp_path):
    save(own("kl"), tmp_path)
    assert describe_coder(str(tmp_path)).note  # no statistics were saved
    assert describe_coder(str(tmp_path)).std == (1.0,) * 4
    weights = load_file(tmp_path / "model.safetensors")
    weights["encoder.conv_in.bias"][0] += 1e-6
    save_file(weights, tmp_path / "model.safetensors")
    assert "was changed" in refusal(tmp_path)


def test_a_stable_diffusion_vae_of_old_is_loaded_whole(tmp_path):
    """The most used ones have names of layers, and configs, from before diffusers 0.15."""
    saved("stable diffusion", tmp_path)
    of_old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for name, weight in load_file(tmp_path / WEIGHTS).items():
        for now, then in of_old.items():
            name = name.replace(f"attentions.0.{now}.", f"attentions.0.{then}.")
        weights[name] = weight
    assert any("query" in name for name in weights)
    save_file(weights, tmp_path / WEIGHTS, {"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    known = ("block_out_channels", "down_block_types", "up_block_types", "norm_num_groups", "_class_name")
    (tmp_path / "config.json").write_text(json.dumps({key: config[key] for key in known}))
    exact = load_coder(str(folder("stable diffusion")))
    clip = video(exact.info)
    of_old = load_coder(str(tmp_path))
    torch.testing.assert_close(of_old.encode(clip).mean, exact.encode(clip).mean)
    assert (of_old.info.mean, of_old.info.std) == (exact.info.mean, exact.info.std)
    torch.save(weights, tmp_path / "diffusion_pytorch_model.bin")  # and many of them are pickled
    (tmp_path / WEIGHTS).unlink()
    torch.testing.assert_close(load_coder(str(tmp_path)).encode(clip).mean, exact.encode(clip).mean)
