"""The same scan under another patient's number: fingerprints, detail, and `fmct split --check --cache`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from fmct.cli import main
from fmct.data.fingerprint import LENGTH, best_shift, detail, fingerprint, similarity, thinned
from fmct.data.geometry import LPS_TO_RAS, SliceStack
from fmct.data.near_duplicates import LOOKS_ALIKE, SAME_HEAD, alike, fingerprints_of
from fmct.data.phantom.acquisition import acquire
from fmct.data.phantom.head import HeadParameters, draw_head
from fmct.data.phantom.scanner import SCANNERS, Overrides
from fmct.data.preprocessing import IsotropicSettings, preprocess_stack
from fmct.data.series import find_scans
from fmct.data.volumes import Volume, VolumeCache

SETTINGS = IsotropicSettings()
RECONSTRUCTIONS = {"thin": ("scanner_c", 1.5), "thick": ("scanner_a", 5.0)}


def reconstruction(head: HeadParameters, scanner: str, slice_mm: float, seed: int) -> Volume:
    """A phantom as one scanner shows it: another kernel, thickness, noise and field of view, in the same pose."""
    rng = np.random.default_rng(seed)
    model = SCANNERS[scanner]
    protocol = model.draw(rng, head, Overrides(slice_mm=slice_mm, pixel_mm=1.5), even=True)
    scan = acquire(head, model, protocol, rng)
    order = np.argsort(scan.origins_mm[:, 2])
    stack = SliceStack(
        np.maximum(scan.hu, -1024)[order],
        scan.origins_mm[order] * LPS_TO_RAS,
        scan.column_cosine * protocol.pixel_mm * LPS_TO_RAS,
        scan.row_cosine * protocol.pixel_mm * LPS_TO_RAS,
    )
    return preprocess_stack(stack, SETTINGS)


@pytest.fixture(scope="module")
def volumes() -> dict[tuple[int, str], Volume]:
    """Four heads, each reconstructed in two ways."""
    heads = [draw_head(np.random.default_rng([5, number])) for number in range(4)]
    return {
        (number, name): reconstruction(head, *how, seed=100 * number + len(name))
        for number, head in enumerate(heads)
        for name, how in RECONSTRUCTIONS.items()
    }


def test_reconstructions_of_one_head_are_alike_and_other_heads_are_not(
    volumes: dict[tuple[int, str], Volume],
) -> None:
    prints = {key: fingerprint(volume.voxels, volume.spacing_mm) for key, volume in volumes.items()}
    details = {key: detail(volume.voxels, volume.spacing_mm) for key, volume in volumes.items()}
    for one in volumes:
        for other in volumes:
            a, b, x, y = prints[one], prints[other], details[one], details[other]
            assert a is not None
            assert b is not None
            assert x is not None
            assert y is not None
            coarse, fine = float(a @ b), similarity(x, y)
            if one[0] == other[0]:
                assert coarse > LOOKS_ALIKE + 0.02, (one, other)
                assert fine > SAME_HEAD + 0.02, (one, other)
            else:
                assert fine < SAME_HEAD - 0.02, (one, other)


def test_a_fingerprint_is_a_unit_vector_and_its_product_a_correlation(volumes: dict[tuple[int, str], Volume]) -> None:
    one, other = (fingerprint(volumes[n, "thin"].voxels, 1.5) for n in (0, 1))
    assert one is not None
    assert other is not None
    assert one.shape == (LENGTH,)
    assert float(one @ other) == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-5)
    assert float(one @ one) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("voxels", [(0, 0, 0), (1, 0, 0), (0, 2, 0), (-1, 1, 2), (0, 5, -4)])
def test_another_crop_changes_little(volumes: dict[tuple[int, str], Volume], voxels: tuple[int, int, int]) -> None:
    hu = volumes[0, "thick"].voxels
    moved = ndimage.shift(hu, voxels, order=0, cval=-1024)
    a, b, x, y = fingerprint(hu, 1.5), fingerprint(moved, 1.5), detail(hu, 1.5), detail(moved, 1.5)
    assert a is not None
    assert b is not None
    assert x is not None
    assert y is not None
    assert float(a @ b) > 0.99
    assert similarity(x, y) > 0.985


def test_other_spacings_and_shapes_give_the_same_fingerprint(volumes: dict[tuple[int, str], Volume]) -> None:
    hu = volumes[2, "thin"].voxels
    coarse = hu.reshape(72, 2, 72, 2, 72, 2).mean(axis=(1, 3, 5)).round().astype(np.int16)
    padded = np.pad(hu, ((5, 3), (2, 9), (11, 0)), constant_values=-1024)
    one = fingerprint(hu, 1.5)
    assert one is not None
    for other in (fingerprint(coarse, 3.0), fingerprint(padded, 1.5)):
        assert other is not None
        assert float(one @ other) > 0.99


def test_nothing_to_be_seen_has_no_fingerprint() -> None:
    air = np.full((48, 48, 48), -1024, np.int16)
    assert fingerprint(air, 3.0) is None
    assert detail(air, 3.0) is None
    air[20:30, 20:30, 20:30] = 40  # 30 mm: no head
    assert fingerprint(air, 3.0) is None


def test_thinning_is_the_mean_over_blocks() -> None:
    hu = np.random.default_rng(0).integers(-1024, 3000, (13, 8, 10)).astype(np.int16)
    means, block_mm = thinned(hu, 1.5, -200, 900)
    assert block_mm == 3.0
    expected = np.clip(hu[:12], -200, 900).reshape(6, 2, 4, 2, 5, 2).astype(float).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(means, expected, rtol=1e-6)


def test_the_shift_between_two_grids_is_found_to_a_tenth() -> None:
    rng = np.random.default_rng(0)
    a = ndimage.gaussian_filter(rng.normal(size=(41, 65, 53)), 2.0).astype(np.float32)
    for shift in ((0, 0, 0), (3, -4, 2), (1.4, 0.0, -2.5)):
        b = ndimage.shift(a, [-s for s in shift], order=3, mode="grid-wrap").astype(np.float32)
        np.testing.assert_allclose(best_shift(a, b), shift, atol=0.1)


def test_blocks_find_what_one_product_finds() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.normal(size=(n, 20)) for n in (5000, 4500))
    one, other = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (one, other))
    other[4400] = one[4999]
    one, other = one.astype(np.float16), other.astype(np.float16)
    i, j = np.nonzero(one.astype(np.float32) @ other.astype(np.float32).T >= 0.8)
    found = alike(one, other, 0.8)
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == set(zip(*(x.tolist() for x in found), strict=True))
    assert (4999, 4400) in set(zip(*(x.tolist() for x in found), strict=True))
    assert len(alike(one[:0], other)[0]) == 0


def test_different_real_heads_are_far_apart_and_noise_is_not(shared_scans: Path) -> None:
    stacks = [find_scans([shared_scans / "dicom" / name])[0][0].load() for name in ("ge_head_tilt", "headneck_pycerr")]
    rng = np.random.default_rng(0)
    blurred = [
        SliceStack(
            np.clip(
                ndimage.gaussian_filter(np.maximum(stack.hu, -1024).astype(np.float32), (0, 1.5, 1.5))
                + rng.normal(0, 8, stack.hu.shape),
                -1024,
                3071,
            ).astype(np.int16),
            stack.origins_ras_mm,
            stack.row_step_ras_mm,
            stack.column_step_ras_mm,
        )
        for stack in stacks
    ]
    details = [detail(preprocess_stack(stack, SETTINGS).voxels, 1.5) for stack in (*stacks, *blurred)]
    ge, neck, ge_blurred, neck_blurred = (part for part in details if part is not None)
    assert similarity(ge, neck) < 0.5
    assert similarity(ge, ge_blurred) > SAME_HEAD + 0.03
    assert similarity(neck, neck_blurred) > SAME_HEAD + 0.03


@pytest.fixture
def archive(volumes: dict[tuple[int, str], Volume], tmp_path: Path) -> Path:
    """A pretraining manifest of heads 0 to 2, a test set of head 3 and head 1 under another number, and a cache."""
    cache = VolumeCache.create(tmp_path / "cache", SETTINGS)
    members = {"archive": [(0, "thin"), (1, "thin"), (2, "thick")], "clinic": [(3, "thin"), (1, "thick")]}
    for name, keys in members.items():
        lines = ["scan_id,path,format,patient_id,split"]
        for number, kind in keys:
            scan_id = f"{name}_{number}{kind}"
            cache.write(scan_id, volumes[number, kind])
            lines.append(f"{scan_id},{scan_id}.nii,nifti,{name}_patient{number},{'' if name == 'archive' else 'test'}")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    cache.save()
    return tmp_path


def check(folder: Path, *more: str) -> int:
    manifests = [str(folder / "archive.csv"), str(folder / "clinic.csv")]
    return main(["split", "--check", *manifests, *more])


def test_the_check_finds_the_same_scan_under_another_number(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(archive) == 0
    out = capsys.readouterr().out
    assert "archive.csv has no splits: all its 3 scans count as pretrain" in out
    assert "disjoint: among 5 scans of 5 patients in 2 splits (pretrain, test)" in out
    assert "volumes were not compared" in out
    assert check(archive, "--cache", str(archive / "cache")) == 1
    out = capsys.readouterr().out
    assert "scan archive_1thin in pretrain" in out
    assert "scan clinic_1thick in test" in out
    assert "NOT disjoint: 0 identifiers and 1 pairs of near-duplicate volumes" in out
    assert check(archive, "--cache", str(archive / "cache"), "--json") == 1
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["disjoint"] is False
    (pair,) = outcome["near_duplicates"]
    assert (pair["scan_a"], pair["scan_b"]) == ("archive_1thin", "clinic_1thick")
    assert 0.97 < pair["similarity"] <= 1


def test_the_check_says_what_it_could_not_compare(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (archive / "clinic.csv").read_text()
    (archive / "clinic.csv").write_text(text.replace("clinic_1thick,", "not_cached,"))
    cache = VolumeCache.open(archive / "cache")
    cache.write("clinic_3thin", Volume(np.full((144, 144, 144), -1024, np.int16), np.diag([1.5, 1.5, 1.5, 1.0])))
    cache.save()
    assert check(archive, "--cache", str(archive / "cache")) == 0
    out = capsys.readouterr().out
    assert "no two of 3 volumes in different splits are near-duplicates" in out
    assert "not compared: 1 without a volume in the cache and 1 without a visible head" in out


def test_one_patients_own_scans_are_no_near_duplicates(archive: Path) -> None:
    text = (archive / "clinic.csv").read_text()
    (archive / "clinic.csv").write_text(text.replace("clinic_patient1", "archive_patient1").replace("test", "pretrain"))
    text = (archive / "clinic.csv").read_text().replace("clinic_patient3,pretrain", "clinic_patient3,test")
    (archive / "clinic.csv").write_text(text)
    assert check(archive, "--cache", str(archive / "cache")) == 0


def test_fingerprints_are_kept_and_taken_again_when_the_volume_changed(
    archive: Path, capfd: pytest.CaptureFixture
) -> None:
    where = ("--cache", str(archive / "cache"))
    check(archive, *where)
    assert "fingerprints: 5 in" in capfd.readouterr().err
    check(archive, *where)
    assert "fingerprints:" not in capfd.readouterr().err
    cache = VolumeCache.open(archive / "cache")
    before = fingerprints_of(cache, ["archive_0thin", "archive_2thick"])
    cache.write("archive_0thin", Volume(cache.read("archive_2thick"), cache.affine("archive_2thick")))
    cache.save()
    after = fingerprints_of(cache, ["archive_0thin", "archive_2thick"])
    assert "fingerprints: 1 in" in capfd.readouterr().err
    assert before.scan_ids == after.scan_ids == ("archive_0thin", "archive_2thick")
    np.testing.assert_array_equal(after.values[0], after.values[1])
    assert not np.array_equal(before.values[0], after.values[0])


def test_several_processes_take_the_same_fingerprints(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmct.data.near_duplicates.VOLUMES_AT_ONCE", 2)
    cache = VolumeCache.open(archive / "cache")
    ids = cache.index.index.tolist()
    alone = fingerprints_of(cache, ids)
    (cache.folder / "fingerprints-v1.parquet").unlink()
    together = fingerprints_of(cache, ids, workers=2)
    assert alone.scan_ids == together.scan_ids
    np.testing.assert_array_equal(alone.values, together.values)


def test_a_damaged_volume_stops_the_check_by_name(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = VolumeCache.open(archive / "cache").volume_path("archive_1thin")
    path.write_bytes(b"nonsense")
    assert check(archive, "--cache", str(archive / "cache")) == 1
    error = capsys.readouterr().err
    assert path.name in error
    assert len(pd.read_parquet(archive / "cache" / next((archive / "cache").iterdir()).name / "index.parquet")) == 5
