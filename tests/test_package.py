"""Weight packages: what they carry, what they refuse, and that they read scans as the weights learned to see them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TinyCohort
from safetensors.torch import load_file, save_file

import fmct
from fmct.cli import main
from fmct.console.errors import UsageError
from fmct.console.files import sha256
from fmct.data.presets import FmhctSettings, IsotropicSettings
from fmct.models.heads import LinearHeadConfig
from fmct.models.packaged import PackageConfig, PackagedModel, load_tensors, save_package
from fmct.models.vit3d import ViT3DConfig
from fmct.views.network_input import InputConfig

BACKBONE = ViT3DConfig(width=24, depth=1, heads=2, patch_voxels=12, registers=2)


def package(folder: Path, *, labels: tuple[str, ...] = (), preprocessing: IsotropicSettings | None = None) -> Path:
    torch.manual_seed(0)
    config = PackageConfig(
        name="tiny",
        task="classifier" if labels else "mae",
        fmct_version=fmct.__version__,
        steps=3,
        backbone=BACKBONE,
        input=InputConfig(voxels=24),
        preprocessing=preprocessing or IsotropicSettings(spacing_mm=9.0, shape_voxels=24),
        head=LinearHeadConfig() if labels else None,
        labels=labels,
    )
    return save_package(folder, PackagedModel(config), "# tiny\n")


def rewrite_sums(folder: Path) -> None:
    names = ("model.safetensors", "config.json", "MODEL_CARD.md")
    (folder / "SHA256SUMS").write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names))


def head_nifti(path: Path) -> Path:
    """A head of balls in air, 180 mm across: scalp, skull, brain and a bleeding."""
    z, y, x = np.mgrid[-100:101:4, -100:101:4, -100:101:4]
    radius = np.sqrt(x**2 + y**2 + z**2)
    hu = np.select([radius < 72, radius < 82, radius < 90], [30, 1000, 20], -1000)
    hu += np.where((x - 30) ** 2 + y**2 + z**2 < 20**2, 40, 0) + np.random.default_rng(0).integers(-9, 9, hu.shape)
    nib.save(nib.Nifti1Image(hu.transpose(2, 1, 0).astype(np.int16), np.diag([4.0, 4.0, 4.0, 1.0])), path)
    return path


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    model = fmct.load(package(tmp_path / "w"))
    again = fmct.load(save_package(tmp_path / "again", model, "# again\n"))
    x = torch.rand(2, 3, 24, 24, 24)
    tokens = model.tokens(x)
    assert tokens.shape == (2, 1 + 2 + 8, 24)
    assert torch.equal(tokens, again.tokens(x))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.config.preprocessing == IsotropicSettings(spacing_mm=9.0, shape_voxels=24)


def test_file_to_embedding_needs_the_package_alone(tmp_path: Path) -> None:
    model = fmct.load(package(tmp_path / "w"))
    path = head_nifti(tmp_path / "head.nii.gz")
    embedding = model.embed(path)
    assert embedding.shape == (24,)
    assert embedding.dtype == np.float32
    assert np.isfinite(embedding).all()
    assert np.array_equal(embedding, model.embed(str(path)))


def test_a_folder_with_two_scans_is_ambiguous(tmp_path: Path) -> None:
    model = fmct.load(package(tmp_path / "w"))
    (tmp_path / "scans").mkdir()
    head_nifti(tmp_path / "scans" / "a.nii.gz")
    image = nib.load(tmp_path / "scans" / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine), tmp_path / "scans" / "b.nii.gz")
    with pytest.raises(UsageError, match="expected one scan, found 2"):
        model.embed(tmp_path / "scans")


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    folder = package(tmp_path / "w")
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UsageError, match="doesn't match its checksum"):
        fmct.load(folder)


def test_missing_and_unexpected_tensors_are_listed(tmp_path: Path) -> None:
    folder = package(tmp_path / "w")
    tensors = load_file(folder / "model.safetensors")
    tensors["backbone.extra"] = tensors.pop("backbone.register_tokens")
    save_file(tensors, folder / "model.safetensors")
    rewrite_sums(folder)
    with pytest.raises(UsageError, match=r"missing: backbone.register_tokens; unexpected: backbone.extra"):
        fmct.load(folder)
    with pytest.warns(UserWarning, match=r"only in part: missing: backbone.register_tokens"):
        fmct.load(folder, allow_partial=True)


def test_misshapen_tensors_are_listed() -> None:
    layer = torch.nn.Linear(3, 2)
    with pytest.raises(UsageError, match=r"misshapen: weight \(2, 4\) for \(2, 3\)"):
        load_tensors(layer, {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, Path("x"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: (f / "SHA256SUMS").unlink(), "checksum file doesn't exist"),
        (lambda f: (f / "MODEL_CARD.md").unlink(), "doesn't exist"),
        (lambda f: shutil.rmtree(f), "the weight package doesn't exist"),
        (lambda f: (f / "config.json").unlink(), "no weight package here"),
    ],
)
def test_incomplete_packages_are_refused(tmp_path: Path, change: object, expected: str) -> None:
    folder = package(tmp_path / "w")
    change(folder)  # type: ignore[operator]
    with pytest.raises(UsageError, match=expected):
        fmct.load(folder)


def test_no_pickle_is_ever_read(tmp_path: Path) -> None:
    folder = package(tmp_path / "w")
    torch.save({"backbone.positions": torch.zeros(1)}, folder / "model.safetensors")
    rewrite_sums(folder)
    with pytest.raises(UsageError, match="not a safetensors file"):
        fmct.load(folder)


def test_config_from_another_version_is_refused(tmp_path: Path) -> None:
    folder = package(tmp_path / "w")
    config = json.loads((folder / "config.json").read_text()) | {"format": 2}
    (folder / "config.json").write_text(json.dumps(config))
    rewrite_sums(folder)
    with pytest.raises(UsageError, match="format"):
        fmct.load(folder)


def test_export_copies_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package(tmp_path / "run" / "weights")
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "w")]) == 0
    fmct.load(tmp_path / "w")
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "w")]) == 2
    assert "isn't empty" in capsys.readouterr().err


def test_scores_do_not_depend_on_batch_mates(tmp_path: Path) -> None:
    model = fmct.load(package(tmp_path / "w", labels=("ICH", "SDH")))
    hu = torch.randint(-1000, 1000, (4, 1, 24, 24, 24), dtype=torch.int16)
    together = model.probabilities(hu)
    assert together.shape == (4, 2)
    alone = torch.cat([model.probabilities(hu[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_weights_without_a_head_give_no_probabilities(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no classification head"):
        fmct.load(package(tmp_path / "w")).probabilities(torch.zeros(1, 1, 24, 24, 24))


def test_embed_reads_manifests_caches_and_plain_files_alike(tiny: TinyCohort, tmp_path: Path) -> None:
    weights = str(package(tmp_path / "w"))
    outs = [tmp_path / f"{name}.parquet" for name in ("cache", "manifest")]
    assert main(["embed", str(tiny.cache), "--weights", weights, "--out", str(outs[0])]) == 0
    manifest = ["embed", str(tiny.manifest), "--cache", str(tiny.cache), "--weights", weights, "--out", str(outs[1])]
    assert main(manifest) == 0
    frames = [pd.read_parquet(out).set_index("scan_id").sort_index() for out in outs]
    pd.testing.assert_frame_equal(frames[0], frames[1])
    assert frames[0].shape == (24, 24)
    path = head_nifti(tmp_path / "head.nii.gz")
    assert main(["embed", str(path), "--weights", weights, "--out", str(tmp_path / "plain.parquet")]) == 0
    plain = pd.read_parquet(tmp_path / "plain.parquet")
    np.testing.assert_allclose(plain.iloc[0, 1:].to_numpy(float), fmct.load(weights).embed(path), atol=1e-6)


def test_embed_lists_what_it_could_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = str(package(tmp_path / "w"))
    good = head_nifti(tmp_path / "good.nii.gz")
    bad = tmp_path / "bad.nii.gz"
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), 100, np.int16), np.diag([8.0, 8, 8, 1])), bad)
    out = str(tmp_path / "e.parquet")
    assert main(["embed", str(good), str(bad), "--weights", weights, "--out", out]) == 3
    assert "IMPLAUSIBLE_HU" in capsys.readouterr().err
    assert len(pd.read_parquet(out)) == 1
    assert main(["embed", str(bad), "--weights", weights, "--out", out]) == 2
    assert main(["embed", str(good), "--weights", weights, "--out", "e.csv"]) == 2
    assert main(["embed", str(tmp_path / "none"), "--weights", weights, "--out", out]) == 2


def test_embed_refuses_a_cache_of_other_preprocessing(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = package(tmp_path / "w", preprocessing=IsotropicSettings(spacing_mm=3.0, shape_voxels=24))
    assert main(["embed", str(tiny.cache), "--weights", str(weights), "--out", str(tmp_path / "e.parquet")]) == 2
    assert "spacing_mm: 3.0 -> 9.0" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["dino", "mae"])
def test_published_checkpoints_become_packages(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    checkpoint = shared / "golden" / f"reference_{kind}_checkpoint.pt"
    assert main(["import-reference", str(checkpoint), "--heads", "4", "--out", str(tmp_path / kind)]) == 0
    out = capsys.readouterr().out
    assert "0 missing, 0 unexpected" in out
    assert "dropped" in out
    if kind == "dino":
        golden = np.load(shared / "golden" / "vit_forward.npz")
        model = fmct.load(tmp_path / kind)
        for name, patches in (("", 4), ("_small", 2)):  # the small input's positions are interpolated
            tokens = model.tokens(torch.from_numpy(golden[f"input{name}"].transpose(0, 1, 4, 3, 2).copy())).numpy()
            expected = golden[f"teacher_tokens{name}"]
            np.testing.assert_allclose(tokens[:, :5], expected[:, :5], atol=1e-5)  # CLS and registers
            grid_zyx = tokens[:, 5:].reshape(2, patches, patches, patches, -1)
            turned = grid_zyx.transpose(0, 3, 2, 1, 4).reshape(expected[:, 5:].shape)
            np.testing.assert_allclose(turned, expected[:, 5:], atol=1e-4)
        assert model.preprocessing == FmhctSettings(shape_voxels=48)
        assert "(B, C, Z, Y, X)" in (tmp_path / kind / "MODEL_CARD.md").read_text()


def test_a_package_without_preprocessing_reads_no_scans(tmp_path: Path) -> None:
    folder = package(tmp_path / "w")
    config = json.loads((folder / "config.json").read_text()) | {"preprocessing": None}
    (folder / "config.json").write_text(json.dumps(config))
    rewrite_sums(folder)
    with pytest.raises(UsageError, match="how scans are to be preprocessed"):
        fmct.load(folder).embed(head_nifti(tmp_path / "head.nii.gz"))
