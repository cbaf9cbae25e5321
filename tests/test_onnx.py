"""What `fmct export --onnx` writes: the same numbers as torch, for any number of scans, or nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fmct
from fmct.cli import main
from fmct.console.errors import FmctError, UsageError
from fmct.data.preprocessing import IsotropicSettings
from fmct.models.cnn import ResNetConfig
from fmct.models.heads import AttentiveHeadConfig, LinearHeadConfig
from fmct.models.packaged import PackageConfig, PackagedModel, save_package
from fmct.models.vit3d import ViT3DConfig
from fmct.release import onnx_model
from fmct.release.onnx_model import require_onnx, write_onnx
from fmct.views.network_input import InputConfig

VIT = ViT3DConfig(width=24, depth=1, heads=2, patch_voxels=12, registers=2)
ROTARY = ViT3DConfig(width=24, depth=1, heads=2, patch_voxels=12, positions="rope")
CASES = [
    (ROTARY, AttentiveHeadConfig(heads=2)),
    (ResNetConfig(depth=10, widen=0.1), LinearHeadConfig()),
    (VIT, LinearHeadConfig(pooling="mean+std+mirror")),
]


def packaged(backbone: object, head: object) -> PackagedModel:
    torch.manual_seed(0)
    config = PackageConfig(
        name="tiny",
        task="classifier" if head else "mae",
        fmct_version=fmct.__version__,
        steps=3,
        backbone=backbone,  # type: ignore[arg-type]
        input=InputConfig(voxels=24),
        preprocessing=IsotropicSettings(spacing_mm=9.0, shape_voxels=24),
        head=head,  # type: ignore[arg-type]
        labels=("ICH", "SDH") if head else (),
    )
    model = PackagedModel(config)
    for parameter in model.parameters():  # what starts at zero would hide a part that is left out
        torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize(("backbone", "head"), CASES, ids=["rotary-attentive", "resnet-linear", "mirrored"])
def test_onnx_computes_what_torch_does_for_any_number_of_scans(tmp_path: Path, backbone: object, head: object) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = packaged(backbone, head)
    assert write_onnx(model, tmp_path / "model.onnx") <= 1e-4
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    x = torch.rand(5, 3, 24, 24, 24)
    found = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found[0]), model.tokens(x)[:, 0], atol=1e-4, rtol=0)
    assert found[0].std() > 1e-3
    if head:
        assert model.head is not None
        tokens = model.tokens(x)
        if model.head_is_mirrored:
            tokens = torch.cat([tokens, model.tokens(x.flip(4))], 2)
        expected = torch.sigmoid(model.head(tokens))
        torch.testing.assert_close(torch.from_numpy(found[1]), expected, atol=1e-4, rtol=0)
    about = session.get_modelmeta().custom_metadata_map
    assert about["labels"] == ("ICH,SDH" if head else "")
    assert about["windows_level_width_hu"] == "[[40.0, 80.0], [80.0, 200.0], [600.0, 2800.0]]"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


class FakeProgram:
    """What torch's exporter returns, of a file that no runtime is asked about."""

    model = SimpleNamespace(metadata_props={})

    def save(self, path: Path, external_data: bool) -> None:
        path.write_bytes(b"")


def test_a_file_that_computes_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "require_onnx", lambda: None)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: FakeProgram())
    for difference in (2e-4, float("nan")):
        monkeypatch.setattr(onnx_model, "largest_difference", lambda *_, found=difference: found)
        with pytest.raises(FmctError, match="computes something else than torch"):
            write_onnx(packaged(VIT, None), tmp_path / "model.onnx")
        assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("no such operator\nand more")

    monkeypatch.setattr(onnx_model, "require_onnx", lambda: None)
    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(FmctError, match="can't be written as ONNX: no such operator"):
        write_onnx(packaged(VIT, None), tmp_path / "model.onnx")


def test_onnx_is_in_the_checksums_of_the_package(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    save_package(tmp_path / "w", packaged(VIT, None), "# tiny\n")  # which checks it against torch
    assert main(["export", str(tmp_path / "w"), "--out", str(tmp_path / "o"), "--onnx"]) == 0
    assert "  model.onnx" in (tmp_path / "o" / "SHA256SUMS").read_text()
    (tmp_path / "o" / "model.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match="doesn't match its checksum"):
        fmct.load(tmp_path / "o")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="onnx, onnxscript, onnxruntime isn't installed"):
        require_onnx()
