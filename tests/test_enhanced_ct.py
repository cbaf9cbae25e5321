"""Multi-frame CT: frames are slices like any other, wherever the file says what about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage
from single_files import item, multi_frame, save, transcode, write_slice
from synthetic_series import head_like, stacked, write_series

import fmct.data.scan as scan_module
from fmct.data.dicom import read_frames_hu, read_headers, read_hu
from fmct.data.privacy import uid_hash
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.scan import stack_from_slices
from fmct.data.series import find_scans

LEGACY = "1.2.840.10008.5.1.4.1.1.2.2"


def stored(hu: np.ndarray) -> np.ndarray:
    return (hu + 1024).astype(np.int16)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_each_frame_is_a_slice(tmp_path: Path, syntax: str) -> None:
    hu, places = head_like(), stacked(12)
    dataset = multi_frame(stored(hu), places)
    path = save(dataset, tmp_path / "a", syntax)
    headers = read_headers(path)
    assert [header.frame for header in headers] == list(range(12))
    assert np.array_equal([header.position_lps_mm for header in headers], places)
    first = headers[0]
    assert (first.pixel_spacing_mm, first.orientation_lps) == ((6.0, 4.5), (1, 0, 0, 0, 1, 0))
    assert (first.kvp, first.kernel, first.contrast) == (100, "J40s", False)
    assert first.image_type == ("ORIGINAL", "PRIMARY", "AXIAL", "NONE")
    assert [header.sop_id for header in headers] == [uid_hash(f"{dataset.SOPInstanceUID} {k}") for k in range(12)]
    assert {header.series_id for header in headers} == {uid_hash(dataset.SeriesInstanceUID)}
    assert np.array_equal(list(read_frames_hu(path, range(12))), hu)
    assert np.array_equal(read_hu(path, 7), hu[7])


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEG2000Lossless", "RLELossless"])
def test_compressed_frames(tmp_path: Path, syntax: str) -> None:
    hu = head_like()
    plain = save(multi_frame(stored(hu).astype(np.uint16), stacked(12)), tmp_path / "a")
    assert transcode(plain, tmp_path / "b", syntax)
    assert len(read_headers(tmp_path / "b")) == 12
    assert np.array_equal(list(read_frames_hu(tmp_path / "b", range(12))), hu)


def test_a_multi_frame_file_is_the_same_scan_as_a_series(tmp_path: Path) -> None:
    """Frames out of order, uneven gaps: one stack, equal to that of single files."""
    hu, places = head_like(), stacked(12)
    places[6:, 2] += 1.5
    order = np.random.default_rng(0).permutation(12)
    (tmp_path / "multi").mkdir()
    save(multi_frame(stored(hu)[order], places[order]), tmp_path / "multi" / "a")
    write_series(tmp_path / "single", hu, places, pixel_mm=(6.0, 4.5))
    (one,), rejected = find_scans([tmp_path / "multi"])
    assert not rejected
    assert one.facts["n_slices"] == 12
    (other,), _ = find_scans([tmp_path / "single"])
    a, b = one.load(), other.load()
    assert np.array_equal(a.hu, b.hu)
    assert np.array_equal(a.hu, hu)
    assert np.allclose(a.origins_ras_mm, b.origins_ras_mm)
    assert np.allclose(a.row_step_ras_mm, b.row_step_ras_mm)
    assert np.allclose(a.column_step_ras_mm, b.column_step_ras_mm)


def test_a_file_is_opened_once_for_all_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hu = head_like()
    path = save(multi_frame(stored(hu), stacked(12)), tmp_path / "a")
    opened: list[Path] = []

    def counted(path: Path, frames: list[int]) -> object:
        opened.append(path)
        return read_frames_hu(path, frames)

    monkeypatch.setattr(scan_module, "read_frames_hu", counted)
    headers = read_headers(path)
    assert np.array_equal(stack_from_slices(headers[2:9]).hu, hu[2:9])
    assert opened == [path]
    with pytest.raises(ScanError, match="header says"):
        stack_from_slices([replace(header, rows=5) for header in headers])


def test_what_frames_say_comes_before_what_all_share(tmp_path: Path) -> None:
    dataset = multi_frame(stored(head_like()), stacked(12), ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    frame = dataset.PerFrameFunctionalGroupsSequence[3]
    frame.CTImageFrameTypeSequence = [item(FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"])]
    frame.PixelValueTransformationSequence = [item(RescaleIntercept=-1000, RescaleSlope=2, RescaleType="US")]
    frame.CTXRayDetailsSequence = [item(KVP=140)]
    frame.PixelMeasuresSequence = [item(PixelSpacing=[1, 1])]
    frame.ContrastBolusUsageSequence = [item(ContrastBolusAgentAdministered="YES", ContrastBolusAgentDetected="NO")]
    path = save(dataset, tmp_path / "a")
    headers = read_headers(path)
    assert [header.frame for header in headers if "LOCALIZER" in header.image_type] == [3]
    assert [header.frame for header in headers if header.contrast] == [3]
    assert [headers[k].kvp for k in (2, 3)] == [100, 140]
    assert headers[3].pixel_spacing_mm == (1, 1)
    raw = stored(head_like()).astype(int)
    two, three = read_frames_hu(path, [2, 3])
    assert np.array_equal(two, raw[2] - 1024)
    assert np.array_equal(three, raw[3] * 2 - 1000)


def test_contrast(tmp_path: Path) -> None:
    agent = [item(CodeValue="7140000", CodingSchemeDesignator="SCT", CodeMeaning="Iodinated contrast agent")]
    dataset = multi_frame(stored(head_like(4)), stacked(4), ContrastBolusAgentSequence=agent)
    assert all(header.contrast for header in read_headers(save(dataset, tmp_path / "a")))
    for frame, said in zip(dataset.PerFrameFunctionalGroupsSequence, ("NO", "YES", "NO", "YES"), strict=True):
        frame.ContrastBolusUsageSequence = [item(ContrastBolusAgentAdministered=said)]
    assert [header.contrast for header in read_headers(save(dataset, tmp_path / "a"))] == [False, True, False, True]


def test_legacy_converted_files(tmp_path: Path) -> None:
    dataset = multi_frame(stored(head_like()), stacked(12), SOPClassUID=LEGACY)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    del shared.CTXRayDetailsSequence, shared.CTReconstructionSequence, shared.CTImageFrameTypeSequence
    shared.UnassignedSharedConvertedAttributesSequence = [item(KVP=80, ConvolutionKernel="FC21")]
    dataset.PerFrameFunctionalGroupsSequence[5].UnassignedPerFrameConvertedAttributesSequence = [item(KVP=120)]
    dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    headers = read_headers(save(dataset, tmp_path / "a"))
    assert [header.kvp for header in headers] == [80] * 5 + [120] + [80] * 6
    assert {header.kernel for header in headers} == {"FC21"}
    assert headers[0].image_type == ("DERIVED", "PRIMARY", "VOLUME", "NONE")
    assert np.array_equal(read_hu(tmp_path / "a", 11), head_like()[11])


def test_quantities_of_spectral_frames_are_refused(tmp_path: Path) -> None:
    dataset = multi_frame(stored(head_like()), stacked(12))
    dataset.PerFrameFunctionalGroupsSequence[8].PixelValueTransformationSequence = [
        item(RescaleIntercept=0, RescaleSlope=0.1, RescaleType="Z_EFF")
    ]
    with pytest.raises(ScanError, match="Z_EFF"):
        read_headers(save(dataset, tmp_path / "a"))


def without_places(dataset: Dataset) -> Dataset:
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    return dataset


def test_frames_without_a_place_are_one_header(tmp_path: Path) -> None:
    (header,) = read_headers(save(without_places(multi_frame(stored(head_like()), stacked(12))), tmp_path / "a"))
    assert (header.position_lps_mm, header.orientation_lps, header.pixel_spacing_mm) == ((), (), ())
    assert header.frame == 0
    plain = write_slice(tmp_path / "b", stored(head_like()))  # a CT image that may have no frames, with a place
    (header,) = read_headers(plain)
    assert header.position_lps_mm == ()
    assert header.sop_id == uid_hash(dcmread(plain).SOPInstanceUID)
    (header,) = read_headers(write_slice(tmp_path / "c", stored(head_like()), SOPClassUID=SecondaryCaptureImageStorage))
    assert header.sop_class == SecondaryCaptureImageStorage


def test_one_lost_place_is_not_hidden(tmp_path: Path) -> None:
    dataset = multi_frame(stored(head_like()), stacked(12))
    del dataset.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence
    headers = read_headers(save(dataset, tmp_path / "a"))
    assert [header.frame for header in headers if not header.position_lps_mm] == [4]


def test_a_single_frame_keeps_its_identifier(tmp_path: Path) -> None:
    dataset = multi_frame(stored(head_like())[:1], stacked(1))
    (header,) = read_headers(save(dataset, tmp_path / "a"))
    assert header.sop_id == uid_hash(dataset.SOPInstanceUID)
    assert header.position_lps_mm == (-90, -90, 0)


def test_groups_for_another_number_of_frames(tmp_path: Path) -> None:
    dataset = multi_frame(stored(head_like()), stacked(12))
    del dataset.PerFrameFunctionalGroupsSequence[11]
    with pytest.raises(ScanError, match="12 frames, but functional groups for 11") as caught:
        read_headers(save(dataset, tmp_path / "a"))
    assert caught.value.code is RejectCode.UNREADABLE


def test_frames_that_are_cut_short(tmp_path: Path) -> None:
    path = save(multi_frame(stored(head_like()), stacked(12)), tmp_path / "a")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ScanError, match="cut short: 29720 of 30720 bytes"):
        read_headers(path)
