"""Scanners: slices lie, average and weigh what their protocol says; files say so too."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from fmct.console.command import main
from fmct.console.errors import FmctError, UsageError
from fmct.data.phantom.acquisition import Sampler, Scan, acquire, grid_under, linear_weights, scan
from fmct.data.phantom.bleeds import IPH
from fmct.data.phantom.blob import Blob
from fmct.data.phantom.detector_noise import noise
from fmct.data.phantom.hard_cases import HARD_CASES, write_hard_cases
from fmct.data.phantom.head import HeadParameters, Pose
from fmct.data.phantom.render import Grid
from fmct.data.phantom.scanner import SCANNERS, Overrides, Protocol, Scanner
from fmct.data.phantom.writer import Identity, uid, write_dicom, write_nifti
from fmct.index import COMMAND as INDEX

HEAD = HeadParameters(seed=8, pose=Pose(shift_mm=(2.0, 14.0, -25.0), pitch_deg=4.0))
COARSE = Overrides(pixel_mm=3.0, slice_mm=4.0)
BLEED = IPH(blob=Blob(center_mm=(28.0, -10.0, 25.0), volume_ml=20.0, seed=3), blood_hu=70.0)
IDENTITY = Identity(patient_id="00123", age_years=61, sex="F", study="test")


def protocol_of(**changes: object) -> Protocol:
    z = tuple(-90.0 + 4.0 * k for k in range(46))
    usual = {
        "kvp": 120, "tilt_deg": 0.0, "slice_mm": (4.0,) * 46, "table_z_mm": z, "pixel_mm": 2.5, "matrix": 96,
        "center_mm": (1.0, -2.0),
    }  # fmt: skip
    return Protocol.model_validate(usual | changes)


def quiet(name: str = "scanner_a", **changes: object) -> Scanner:
    return SCANNERS[name].model_copy(update={"noise_hu": 1e-6, **changes})


def positions_lps(made: Scan) -> np.ndarray:
    """(K, R, C, 3) centers of all pixels."""
    steps = np.arange(made.protocol.matrix)[:, None] * made.protocol.pixel_mm
    plane = (steps * made.column_cosine)[:, None] + (steps * made.row_cosine)[None]
    return made.origins_mm[:, None, None] + plane


def read_series(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("tilt_deg", [0.0, 18.5, -12.0])
def test_a_lesion_is_where_it_is_and_as_large_at_any_tilt(tilt_deg: float) -> None:
    z = tuple(-130.0 + 4.0 / np.cos(np.deg2rad(tilt_deg)) * k for k in range(55))
    protocol = protocol_of(tilt_deg=tilt_deg, table_z_mm=z, slice_mm=(4.0,) * 55)
    made = acquire(HEAD, quiet(), protocol, np.random.default_rng(0), [BLEED], lesions=True)
    share = made.lesions["IPH"]
    volume_ml = share.sum(dtype=np.float64) * protocol.pixel_mm**2 * 4.0 / 1000
    assert volume_ml == pytest.approx(20.0, rel=0.05)
    centroid = (positions_lps(made) * share[..., None]).sum((0, 1, 2)) / share.sum()
    center = HEAD.pose.to_patient(np.array([BLEED.blob.center_mm], np.float32).T)[:, 0]
    # The body is irregular; its centroid is that of the same body, scanned straight.
    straight = acquire(HEAD, quiet(), protocol_of(), np.random.default_rng(0), [BLEED], lesions=True)
    weights = straight.lesions["IPH"][..., None]
    expected = (positions_lps(straight) * weights).sum((0, 1, 2)) / weights.sum()
    np.testing.assert_allclose(centroid, expected, atol=0.3)
    np.testing.assert_allclose(centroid * (-1, -1, 1), center, atol=5.0)
    assert np.median(made.hu[share > 0.999]) == pytest.approx(70.0, abs=1.0)


def test_a_thick_slice_is_the_mean_of_the_thin_ones_within_it() -> None:
    grid = Grid.spanning((-120.0, -120.0, -100.0), (120.0, 120.0, 100.0), 2.0)
    volume = np.random.default_rng(0).normal(0, 100, grid.shape_zyx).astype(np.float32)
    tilt = 15.0
    along = np.array([-4.0, -2.0, 0.0, 2.0, 4.0])
    thick = protocol_of(tilt_deg=tilt, slice_mm=(10.0,), table_z_mm=(5.0,))
    # Planes off the center along the normal, said as a table position and a shift within the plane.
    normal = np.array([0.0, np.sin(np.deg2rad(tilt)), np.cos(np.deg2rad(tilt))])
    thin = [
        protocol_of(
            tilt_deg=tilt, slice_mm=(2.0,), table_z_mm=(5.0 + a * normal[2],), center_mm=(1.0, -2.0 + a * normal[1])
        )
        for a in along
    ]
    mean = np.mean([Sampler(grid, p, 0.5)(volume, slice(0, 1)) for p in thin], axis=0)
    np.testing.assert_allclose(Sampler(grid, thick, 0.5)(volume, slice(0, 1)), mean, atol=0.05)


def test_sampling_reproduces_a_linear_field_exactly() -> None:
    protocol = protocol_of(tilt_deg=18.5)
    grid = grid_under(HEAD, protocol, 2.0)
    x, y, z = (grid.axis_mm(axis) for axis in range(3))
    field = (z[:, None, None] * 3 + y[:, None] * 2 - x).astype(np.float32)
    middle = slice(22, 24)
    sampled = Sampler(grid, protocol, 0.5)(field, middle)
    at = positions_lps(Scan(quiet(), protocol, np.zeros((46, 96, 96), np.int16)))[middle]
    expected = at[..., 2] * 3 - at[..., 1] * 2 + at[..., 0]
    inside = np.s_[:, 6:-6, 6:-6]
    np.testing.assert_allclose(sampled[inside], expected[inside], atol=0.01)


def test_weights_beyond_an_axis_are_zero() -> None:
    index, weight = linear_weights(np.array([-1.5, -0.25, 2.5, 9.9]), 0.0, 1.0, 4)
    assert (weight.sum(-1) == [0.0, 0.75, 1.0, 0.0]).all()
    assert index.min() >= 0
    assert index.max() <= 3


@pytest.mark.parametrize("name", list(SCANNERS))
def test_noise_is_as_strong_and_as_correlated_as_the_scanner_says(name: str) -> None:
    scanner = SCANNERS[name]
    pixel = float(np.mean(scanner.pixel_mm))
    protocol = protocol_of(pixel_mm=pixel, matrix=256)
    rng = np.random.default_rng(0)
    five, one = (np.stack([noise(scanner, protocol, t, rng) for _ in range(4)]) for t in (5.0, 1.25))
    assert five.std() == pytest.approx(scanner.noise_hu, rel=0.05)
    assert one.std() == pytest.approx(2 * scanner.noise_hu, rel=0.05)
    neighbors = np.corrcoef(five[..., 1:].ravel(), five[..., :-1].ravel())[0, 1]
    sigma = scanner.noise_correlation_mm / pixel
    assert neighbors == pytest.approx(np.exp(-1 / (4 * sigma**2)), abs=0.06)  # autocorrelation of a filtered Gaussian


def test_same_seed_same_scan() -> None:
    scanner = SCANNERS["scanner_b"]
    first, again, other = (scan(HEAD, scanner, np.random.default_rng(s), overrides=COARSE) for s in (1, 1, 2))
    assert first.protocol == again.protocol
    assert np.array_equal(first.hu, again.hu)
    assert first.hu.shape != other.hu.shape or not np.array_equal(first.hu, other.hu)


def test_padding_stands_outside_the_circle_alone() -> None:
    made = scan(HEAD, SCANNERS["scanner_b"], np.random.default_rng(0), overrides=COARSE)
    padded = made.hu == -2000
    assert padded.mean() == pytest.approx(1 - np.pi / 4, abs=0.02)
    assert padded[:, 0, 0].all()
    assert not padded[:, made.protocol.matrix // 2].any()
    assert made.hu[~padded].min() >= -1024
    assert scan(HEAD, SCANNERS["scanner_a"], np.random.default_rng(0), overrides=COARSE).hu.min() >= -1024


def test_protocols_cover_the_head_and_keep_their_gaps() -> None:
    thicknesses, tilts, uneven = set(), set(), 0
    for seed in range(60):
        for scanner in SCANNERS.values():
            protocol = scanner.draw(np.random.default_rng(seed), HEAD)
            z = np.sort(protocol.table_z_mm)
            assert z[0] <= HEAD.pose.shift_mm[2] - HEAD.pose.neck_mm + 0.01
            assert z[-1] >= HEAD.pose.shift_mm[2] + 96.0
            order = np.argsort(protocol.table_z_mm)
            between = np.convolve(np.array(protocol.slice_mm)[order], [0.5, 0.5], "valid")
            np.testing.assert_allclose(np.diff(z) * np.cos(np.deg2rad(protocol.tilt_deg)), between, atol=2e-3)
            thicknesses |= set(protocol.slice_mm)
            tilts.add(protocol.tilt_deg)
            uneven += not protocol.even
            assert scanner.draw(np.random.default_rng(seed), HEAD, even=True).even
    assert min(thicknesses) == 0.5
    assert max(thicknesses) == 8.0
    assert tilts == {0.0, 12.0, 18.5, -8.0, -15.0, 22.0}
    assert uneven > 5


def test_overrides_keep_the_field_of_view_or_refuse() -> None:
    assert Overrides(pixel_mm=3.0).plane(0.5, 512) == (3.0, 86)
    assert Overrides(matrix=128).plane(0.5, 512) == (2.0, 128)
    assert Overrides().plane(0.5, 512) == (0.5, 512)
    with pytest.raises(UsageError, match="can't hold a head"):
        Overrides(pixel_mm=1.0, matrix=128).plane(0.5, 512)


@pytest.mark.parametrize("name", list(SCANNERS))
def test_dicom_says_what_was_scanned(name: str, tmp_path: Path) -> None:
    scanner = SCANNERS[name]
    made = scan(HEAD, scanner, np.random.default_rng(4), overrides=COARSE)
    write_dicom(made, tmp_path / "series", IDENTITY)
    files = read_series(tmp_path / "series")
    assert len(files) == len(made.hu)
    for k, file in enumerate(files):
        hu = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
        assert np.array_equal(hu, made.hu[k])
        np.testing.assert_allclose(np.array(file.ImagePositionPatient, float), made.origins_mm[k], atol=1e-4)
        assert file.InstanceNumber == k + 1
        assert file.file_meta.MediaStorageSOPInstanceUID == file.SOPInstanceUID
    first = files[0]
    assert first.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert first.SOPClassUID == CTImageStorage
    assert (first.PatientID, first.PatientAge, first.PatientSex) == ("00123", "061Y", "F")
    assert list(first.ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert (first.Modality, first.BodyPartExamined) == ("CT", "HEAD")
    assert (first.ManufacturerModelName, first.ConvolutionKernel) == (scanner.model, scanner.kernel)
    assert float(first.KVP) in scanner.kvp
    assert first.PixelRepresentation == int(scanner.signed)
    assert float(first.RescaleIntercept) == (0 if scanner.signed else -1024)
    assert ("PixelPaddingValue" in first) == (scanner.padding_hu is not None)
    assert len({f.SOPInstanceUID for f in files}) == len(files)
    assert {f.SeriesInstanceUID for f in files} == {IDENTITY.series_uid}
    assert all(len(u) <= 64 and u.is_valid for u in (first.StudyInstanceUID, first.SOPInstanceUID))


def test_dicom_tilt_and_gaps_can_be_recovered(tmp_path: Path) -> None:
    z = [-80.0]
    slice_mm = [4.0] * 14 + [7.0] * 14
    cosine = np.cos(np.deg2rad(18.5))
    for thin, thick in itertools.pairwise(slice_mm):
        z.append(z[-1] + (thin + thick) / 2 / cosine)
    protocol = protocol_of(tilt_deg=18.5, slice_mm=tuple(slice_mm), table_z_mm=tuple(z))
    made = Scan(SCANNERS["scanner_b"], protocol, np.zeros((28, 96, 96), np.int16))
    write_dicom(made, tmp_path, IDENTITY)
    files = read_series(tmp_path)
    orientation = np.array(files[0].ImageOrientationPatient, float)
    # The very orientation that a real gantry tilted by 18.5 degrees writes.
    np.testing.assert_allclose(orientation, [1, 0, 0, 0, 0.948324, -0.317305], atol=1e-5)
    normal = np.cross(orientation[:3], orientation[3:])
    positions = np.array([f.ImagePositionPatient for f in files], float)
    assert np.ptp(positions[:, 0]) == np.ptp(positions[:, 1]) == 0
    travel = (positions[-1] - positions[0]) / np.linalg.norm(positions[-1] - positions[0])
    assert np.degrees(np.arccos(travel @ normal)) == pytest.approx(18.5, abs=1e-3)
    gaps = np.diff(positions @ normal)
    np.testing.assert_allclose(gaps, [4.0] * 13 + [5.5] + [7.0] * 13, atol=1e-3)
    np.testing.assert_allclose([float(f.SliceThickness) for f in files], slice_mm)
    center = positions[5] + 47.5 * 2.5 * (orientation[:3] + orientation[3:])
    np.testing.assert_allclose(center, [1.0, -2.0, z[5]], atol=1e-3)


@pytest.mark.parametrize("name", list(SCANNERS))
def test_dicom_and_nifti_have_every_voxel_in_the_same_place(name: str, tmp_path: Path) -> None:
    scanner = SCANNERS[name].model_copy(update={"tilts_deg": (12.0,)})
    made = scan(HEAD, scanner, np.random.default_rng(6), overrides=COARSE, even=True)
    write_dicom(made, tmp_path / "series", IDENTITY)
    write_nifti(made, tmp_path / "scan.nii.gz")
    image = nib.load(tmp_path / "scan.nii.gz")
    values = np.asarray(image.dataobj)
    assert image.get_data_dtype() == np.int16
    assert int(image.header["sform_code"]) == 1
    np.testing.assert_allclose(image.header.get_zooms()[:2], [3.0, 3.0], rtol=1e-5)
    rng = np.random.default_rng(0)
    for k, file in enumerate(read_series(tmp_path / "series")):
        hu = file.pixel_array + float(file.RescaleIntercept)
        orientation, origin = np.array(file.ImageOrientationPatient, float), np.array(file.ImagePositionPatient, float)
        for row, column in rng.integers(0, made.protocol.matrix, (5, 2)):
            lps = origin + float(file.PixelSpacing[0]) * (orientation[:3] * column + orientation[3:] * row)
            ras = image.affine @ [column, row, k, 1]
            np.testing.assert_allclose(ras[:3], lps * (-1, -1, 1), atol=2e-3)
            assert values[column, row, k] == hu[row, column]


def test_nifti_refuses_uneven_slices(tmp_path: Path) -> None:
    protocol = protocol_of(slice_mm=(4.0, 4.0, 7.0), table_z_mm=(0.0, 4.0, 9.5))
    made = Scan(SCANNERS["scanner_b"], protocol, np.zeros((3, 96, 96), np.int16))
    with pytest.raises(FmctError, match="uneven"):
        write_nifti(made, tmp_path / "scan.nii.gz")
    assert not list(tmp_path.iterdir())


def test_identifiers_follow_from_the_texts_alone() -> None:
    assert uid("a", "b") == uid("a", "b") != uid("a", "c")
    assert IDENTITY.study_uid != IDENTITY.model_copy(update={"study": "next"}).study_uid
    assert IDENTITY.series_uid != IDENTITY.model_copy(update={"series": 3}).series_uid


def test_hard_cases_are_what_they_are_called(tmp_path: Path) -> None:
    write_hard_cases(tmp_path, seed=0, overrides=COARSE)
    assert {p.relative_to(tmp_path).as_posix() for p in (tmp_path / "hard_cases").iterdir()} == set(HARD_CASES)
    scout = read_series(tmp_path / "hard_cases" / "scout")
    assert len(scout) == 1
    assert "LOCALIZER" in scout[0].ImageType
    assert scout[0].pixel_array.shape == (scout[0].Rows, scout[0].Columns)
    assert len(read_series(tmp_path / "hard_cases" / "two_slices")) == 2
    twice = read_series(tmp_path / "hard_cases" / "two_phases")
    half = len(twice) // 2
    for first, second in zip(twice[:half], twice[half:], strict=True):
        assert first.ImagePositionPatient == second.ImagePositionPatient
        assert first.PixelData != second.PixelData


def test_hard_cases_are_rejected_for_what_they_are(tmp_path: Path) -> None:
    write_hard_cases(tmp_path, seed=0, overrides=COARSE)
    assert main(INDEX, [str(tmp_path), "--out", str(tmp_path / "m.csv"), "--key-file", str(tmp_path / "k")]) == 3
    rejects = pd.read_csv(tmp_path / "rejects.csv")
    series = rejects["path"].str.removesuffix("/0001.dcm")  # of a single file, that is named
    assert dict(zip(series, rejects["code"], strict=True)) == {path: code.name for path, code in HARD_CASES.items()}
    assert (tmp_path / "m.csv").read_text().count("\n") == 1
