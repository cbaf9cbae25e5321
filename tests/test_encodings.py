"""Every transfer syntax and every way of storing values gives the HU that were meant, or a clear refusal."""

from __future__ import annotations

import base64
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    HTJ2K,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from single_files import encapsulate_in, image, item, save, transcode, waves, write_slice
from synthetic_series import head_like, stacked, write_series

from fmct.data.dicom import SliceError, read_frames_hu, read_headers, read_hu
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.series import find_scans

NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
LOSSLESS = [
    "JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEGLSNearLossless", "JPEG2000Lossless",
    "JPEG2000", "RLELossless",
]  # fmt: skip
DEPTHS = [(8, 8), (16, 8), (16, 10), (16, 12), (16, 13), (16, 16)]
HTJ2K_STREAMS = {
    # 16 x 16 of 40 x + 7 y^2, reversible, as the encoder OpenJPH wrote it; the signed one is 900 less
    False: """
    /0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQ
    kJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAALUAAf+TwAAmn/wFB3QAAMAAE0AAEwDa/gIHdAAG/QKHdADAABNA
    ABVAbGwBgnQA3/D0DZ7+AUa0AMAAFTAABa4ymUz2qnECdQD3vu+9997wecPnDZ83fP4AAADHJDG4AMAAK6AAF26O4ziO4zjnynp6cIJ4AO1u
    27Zt27a7bdu2bdvutm3btm0DZQNlA2UDZQNlA2UDZQPlBCACCEIAMf16/WX9ev1l8xsxtAH/2Q==
    """,
    True: """
    /0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQ
    kJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAALQAAf+TwAAlpwIHdAAAwAATQAATANr+Agd0AAb9Aod0AMAAE0AA
    FUBsbAGCdADf8PQNnv4BRrQAwAAVMAAFrjKZTPaqcQJ1APe+77333vB5w+cNnzd8/gAAAMckMbgAwAAroAAXbo7jOI7jOOfKenpwgngA7W7b
    tm3btrtt27Zt2+62bdu2bQNlA2UDZQNlA2UDZQNlA+UEIAIIQgAx/Xr9Zf16/WXzGzG0Af/Z
    """,
}
# the same with a black and a white square, quality 98, as libjpeg-turbo wrote it; decoded by it, at most 2 off
JPEG_12_BITS = """
    /9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAEBAQEBAQEBAQEBAQEBAQIBAQEBAQIBAQECAgICAgICAgIDAwQDAwMDAwICAwQDAwQEBAQEAgMFBQQE
    BQQEBAT/wQALDAAQABABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAADA0O/8QAMBAAAAIHAwoHAAAAAAAAAAAABwgDBAUGCQoLAQITAAwREhQVFydE
    YhYYGSlFR2T/2gAIAQEAAD8AwmENbHE6TKCaHCKJnCLvUYnzq8RPBDDXR0vl13TwvuB5faWqtJHZbW1Y/EFn2W6EaLB2ezTiYtmo1xlJpII/XLPl
    E/HR/BrPZ25UECUmzSJP1yz9sx+Oj+o1ns/Pk+rezN5Wnlxn6WPRiJTGU9oTLTksqmNJXqswCiq0lW2Zc9jEwmKHirX6WI1EaDYzECBK1IEQ0uoo
    lKhD+kCVN2RAJigukpbDdsN2jE20URV3Y9zGUVW9/9k=
    """


def refusal(path: Path) -> tuple[RejectCode, str]:
    """What `read_headers` raises."""
    with pytest.raises(ScanError) as caught:
        read_headers(path)
    return caught.value.code, caught.value.detail


def typed(stored: np.ndarray, allocated: int, signed: bool) -> np.ndarray:
    return stored.astype(f"{'i' if signed else 'u'}{allocated // 8}")


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: uid.name)
@pytest.mark.parametrize(("allocated", "bits"), [*DEPTHS, (32, 32), (32, 20)])
@pytest.mark.parametrize("signed", [False, True])
def test_uncompressed(tmp_path: Path, syntax: str, allocated: int, bits: int, signed: bool) -> None:
    stored = waves(bits, signed, rows=5, columns=7) if allocated == 8 else waves(bits, signed)
    path = write_slice(tmp_path / "a", typed(stored, allocated, signed), bits, syntax=syntax)
    assert [(header.rows, header.columns) for header in read_headers(path)] == [stored.shape]
    assert np.array_equal(read_hu(path), np.clip(stored, -32767, 32767))


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(("allocated", "bits"), DEPTHS)
@pytest.mark.parametrize("signed", [False, True])
def test_compressed(tmp_path: Path, syntax: str, allocated: int, bits: int, signed: bool) -> None:
    stored = waves(bits, signed)
    plain = write_slice(tmp_path / "a", typed(stored, allocated, signed), bits, RescaleIntercept=-24, RescaleSlope=1)
    assert transcode(plain, tmp_path / "b", syntax)
    (header,) = read_headers(tmp_path / "b")
    assert header.position_lps_mm == (-10, -10, 7.5)
    assert np.array_equal(read_hu(tmp_path / "b"), np.clip(stored - 24, -32767, 32767))


@pytest.mark.parametrize(
    ("syntax", "allocated", "bits"),
    [("JPEGBaselineProcess1", 8, 8), ("JPEGExtendedProcess2_4", 8, 8)],
)
def test_lossy_jpeg(tmp_path: Path, syntax: str, allocated: int, bits: int) -> None:
    y, x = np.mgrid[:32, :40]
    stored = np.rint((1 << bits) * (0.5 + 0.4 * np.sin(x / 7) * np.cos(y / 6))).astype(int)
    plain = write_slice(tmp_path / "a", typed(stored, allocated, False), bits)
    assert transcode(plain, tmp_path / "b", syntax)
    assert np.abs(read_hu(tmp_path / "b") - stored).max() <= 2


def test_lossy_jpeg_of_12_bits(tmp_path: Path) -> None:
    y, x = np.mgrid[:16, :16]
    stored = 40 * x + 7 * y * y
    stored[4:8, 4:8], stored[10:12, 10:12] = 0, 4095
    plain = write_slice(tmp_path / "a", stored.astype(np.uint16), 12)
    path = encapsulate_in(tmp_path / "b", base64.b64decode(JPEG_12_BITS), plain, JPEGExtended12Bit)
    assert np.abs(read_hu(path) - stored).max() <= 2
    assert transcode(plain, tmp_path / "c", "JPEGExtendedProcess2_4")  # 16 bits, which the standard doesn't have
    assert len(read_headers(tmp_path / "c")) == 1
    with pytest.raises(ScanError, match="lossy JPEG has 8 or 12"):
        read_hu(tmp_path / "c")


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K], ids=lambda uid: uid.name)
@pytest.mark.parametrize("signed", [False, True])
def test_high_throughput_jpeg_2000(tmp_path: Path, syntax: str, signed: bool) -> None:
    y, x = np.mgrid[:16, :16]
    stored = 40 * x + 7 * y * y - 900 * signed
    plain = write_slice(tmp_path / "a", typed(stored, 16, signed))
    path = encapsulate_in(tmp_path / "b", base64.b64decode(HTJ2K_STREAMS[signed]), plain, syntax)
    assert len(read_headers(path)) == 1
    assert np.array_equal(read_hu(path), stored)


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEG2000Lossless", "JPEGLSLossless", "RLELossless"])
def test_frames_come_in_any_order(tmp_path: Path, syntax: str) -> None:
    frames = np.stack([waves(12, False, seed=k) for k in range(5)]).astype(np.uint16)
    plain = write_slice(tmp_path / "a", frames, 12, SOPClassUID=SecondaryCaptureImageStorage)
    assert transcode(plain, tmp_path / "b", syntax)
    for path in (plain, tmp_path / "b"):
        found = list(read_frames_hu(path, [3, 0, 4]))
        assert np.array_equal(found, frames[[3, 0, 4]])
        with pytest.raises(ScanError, match="no frame 5 among 5"):
            read_hu(path, 5)


def test_frames_of_several_fragments(tmp_path: Path) -> None:
    """A table of offsets says which fragments make a frame; a single frame takes all of them."""
    frames = np.stack([waves(12, False, seed=k) for k in range(3)]).astype(np.uint16)
    plain = write_slice(tmp_path / "a", frames, 12, SOPClassUID=SecondaryCaptureImageStorage)
    transcode(plain, tmp_path / "b", "JPEG2000Lossless")
    dataset = dcmread(tmp_path / "b")
    streams = list(generate_frames(dataset.PixelData, number_of_frames=3))
    dataset.PixelData = encapsulate(streams, fragments_per_frame=2)
    dataset["PixelData"].VR = "OB"
    dataset.save_as(tmp_path / "c")
    assert np.array_equal(list(read_frames_hu(tmp_path / "c", range(3))), frames)
    single = write_slice(tmp_path / "d", frames[1], 12)
    dataset = dcmread(single)
    dataset.PixelData = encapsulate(streams[1:2], fragments_per_frame=3)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(tmp_path / "e")
    assert np.array_equal(read_hu(tmp_path / "e"), frames[1])


UNDECODABLE = {
    "1.2.840.10008.1.2.4.100": "MPEG2", "1.2.840.10008.1.2.4.94": "JPIP", "1.2.840.10008.1.2.4.92": "JPEG 2000 Part 2",
    "1.2.840.113619.5.2": "1.2.840.113619.5.2", "1.2.3.4": "1.2.3.4",
}  # fmt: skip


@pytest.mark.parametrize(("syntax", "name"), UNDECODABLE.items())
def test_what_cannot_be_decoded_is_found_in_the_header(tmp_path: Path, syntax: str, name: str) -> None:
    plain = write_slice(tmp_path / "a", waves(12, False).astype(np.uint16))
    path = encapsulate_in(tmp_path / "b", b"stream", plain, syntax)
    code, detail = refusal(path)
    assert code is RejectCode.UNSUPPORTED
    assert name in detail
    with pytest.raises(ScanError, match="UNSUPPORTED"):
        read_hu(path)
    dataset = dcmread(path)
    dataset.Modality = "MR"
    dataset.save_as(path)
    assert [header.modality for header in read_headers(path)] == ["MR"]  # the rules say what it is


def test_a_syntax_that_is_no_uid_is_not_quoted(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", waves(12, False).astype(np.uint16))
    content = path.read_bytes()
    path.write_bytes(content.replace(ExplicitVRLittleEndian.encode() + b"\0", b"DOE^JOHN 1961-02-03\0"))
    assert refusal(path) == (RejectCode.UNSUPPORTED, "transfer syntax (malformed)")


def test_the_stream_is_believed_rather_than_the_label(tmp_path: Path) -> None:
    stored = waves(12, False)
    plain = write_slice(tmp_path / "a", stored.astype(np.uint16), 12)
    for written, claimed in (("JPEGLSLossless", JPEGLosslessSV1), ("JPEG2000Lossless", JPEGBaseline8Bit)):
        transcode(plain, tmp_path / "b", written)
        dataset = dcmread(tmp_path / "b")
        dataset.file_meta.TransferSyntaxUID = claimed
        dataset.save_as(tmp_path / "b")
        assert np.array_equal(read_hu(tmp_path / "b"), stored)


def test_label_and_container_that_contradict_each_other(tmp_path: Path) -> None:
    plain = write_slice(tmp_path / "a", waves(12, False).astype(np.uint16), 12)
    explicit, lossless = (
        f"UI{chr(len(uid))}\0{uid}".encode() for uid in (ExplicitVRLittleEndian + "\0", JPEGLosslessSV1)
    )
    (tmp_path / "b").write_bytes(plain.read_bytes().replace(explicit, lossless))
    code, detail = refusal(tmp_path / "b")
    assert code is RejectCode.UNREADABLE
    assert "aren't encapsulated" in detail
    transcode(plain, tmp_path / "c", "JPEGLosslessProcess14_1")
    content = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(content.replace(JPEGLosslessSV1.encode(), ExplicitVRLittleEndian.encode() + b"\0\0\0"))
    code, detail = refusal(tmp_path / "c")
    assert code is RejectCode.UNREADABLE
    assert "are encapsulated" in detail


def test_the_real_single_files(shared_scans: Path) -> None:
    folder = shared_scans / "dicom" / "single_files"
    plain, compressed = read_hu(folder / "693_UNCR.dcm"), read_hu(folder / "693_J2KR.dcm")
    assert np.array_equal(plain, compressed)
    assert (plain == -32768).mean() == pytest.approx(0.213, abs=5e-4)
    odd = read_hu(folder / "J2K_pixelrep_mismatch.dcm").astype(float)
    odd[odd == -32768] = -2000
    assert (odd.min(), odd.max(), round(odd.mean(), 3)) == (-2000, 1896, -658.437)


@given(
    signed=st.booleans(), bits=st.integers(9, 16), high=st.integers(0, 7), dirt=st.integers(0, 0xFFFF),
    slope=st.sampled_from([1.0, 0.5, 2.0, 0.0625, 1.3]), intercept=st.sampled_from([0.0, -1024.0, -1000.5, 24.0]),
    syntax=st.sampled_from([*NATIVE[:3], RLELossless]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_way_of_storing_gives_the_same_hu(
    tmp_path_factory: pytest.TempPathFactory, signed: bool, bits: int, high: int, dirt: int, slope: float,
    intercept: float, syntax: str, seed: int,
) -> None:  # fmt: skip
    """Values go into any bits, between bits that hold anything above and nothing below."""
    folder = tmp_path_factory.mktemp("a")
    high = min(high, 16 - bits)
    values = np.random.default_rng(seed).integers(-(1 << bits - 1) if signed else 0, 1 << bits - signed, (6, 4))
    above = (dirt << (bits + high)) & 0xFFFF
    stored = ((((values & (1 << bits) - 1) << high) & 0xFFFF) | above).astype(np.uint16)
    path = write_slice(
        folder / "a", stored, bits, signed, ImplicitVRLittleEndian if syntax == RLELossless else syntax,
        HighBit=bits - 1 + high, RescaleSlope=slope, RescaleIntercept=intercept,
    )  # fmt: skip
    if syntax == RLELossless:
        dataset = dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
    expected = np.clip(np.rint(values * slope + intercept), -32767, 32767)
    assert np.array_equal(read_hu(path), expected)


def test_overlays_in_the_upper_bits_are_no_values(tmp_path: Path) -> None:
    """12 bits of 16 with a drawing in bit 12, as old consoles burn it in: 3,000 HU too high where it is drawn."""
    hu = np.full((8, 8), 40)
    drawn = (hu + 1024).astype(np.uint16)
    drawn[2, :] |= 1 << 12
    path = write_slice(tmp_path / "a", drawn, 12, RescaleIntercept=-1024, RescaleSlope=1)
    assert np.array_equal(read_hu(path), hu)
    negative = ((hu - 500) & 0x0FFF).astype(np.uint16)  # a negative number without its sign in the unused bits
    path = write_slice(tmp_path / "b", negative, 12, signed=True)
    assert np.array_equal(read_hu(path), hu - 500)


def test_a_high_bit_that_cannot_be_meant(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", waves(12, False).astype(np.uint16), 12, HighBit=15)
    with pytest.raises(ScanError, match="UNREADABLE"):
        read_hu(path)
    for tags in ({"HighBit": 3}, {"HighBit": 16}):
        path = write_slice(tmp_path / "a", waves(12, False).astype(np.uint16), 12, **tags)
        assert refusal(path)[0] is RejectCode.UNREADABLE


def padded(hu: int = 40, padding: int = -2000) -> np.ndarray:
    """Values of one slice: tissue with a padded frame around it."""
    values = np.full((10, 12), hu)
    values[[0, -1]] = values[:, [0, -1]] = padding
    return values


@pytest.mark.parametrize("written", [(63536, "US"), (-2000, "SS")])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [12, 16])
def test_padding_with_any_sign(tmp_path: Path, written: tuple[int, str], signed: bool, bits: int) -> None:
    """-2000, which is 63536 without sign, written with or without, also where 12 bits are said to count."""
    path = write_slice(tmp_path / "a", (padded() & 0xFFFF).astype(np.uint16), bits, signed, RescaleIntercept=0)
    dataset = dcmread(path)
    dataset.add_new(0x00280120, written[1], written[0])
    dataset.save_as(path)
    expected = np.where(padded() == -2000, -32768, 40)
    assert np.array_equal(read_hu(path), expected)


def test_padding_ranges(tmp_path: Path) -> None:
    values = padded()
    values[0], values[-1] = -1990, -2010
    for ends in ((-2010, -1990), (-1990, -2010)):
        path = write_slice(
            tmp_path / "a", values.astype(np.int16), PixelPaddingValue=ends[0], PixelPaddingRangeLimit=ends[1]
        )
        assert np.array_equal(read_hu(path), np.where(values < -1900, -32768, 40))


def test_padding_that_says_nothing(tmp_path: Path) -> None:
    values = padded(padding=-1000)
    for value, vr in (([-2000, 5], "SS"), (70000, "UL"), (b"\x01\x02\x03", "OB"), (None, "SS"), (-3000, "SS")):
        path = write_slice(tmp_path / "a", values.astype(np.int16))
        dataset = dcmread(path)
        dataset.add_new(0x00280120, vr, value)
        dataset.save_as(path)
        assert np.array_equal(read_hu(path), values), (value, vr)


def test_padding_of_a_value_that_tissue_has(tmp_path: Path) -> None:
    """0 HU around the head is padding, 0 HU in a ventricle is water."""
    values = padded(padding=0)
    values[4, 5] = 0
    path = write_slice(tmp_path / "a", values.astype(np.int16), PixelPaddingValue=0)
    expected = np.where(values == 0, -32768, 40)
    expected[4, 5] = 0
    assert np.array_equal(read_hu(path), expected)


def test_display_does_not_change_values(tmp_path: Path) -> None:
    stored = waves(12, False)
    for photometric in ("MONOCHROME1", "MONOCHROME2", None):
        path = write_slice(tmp_path / "a", stored.astype(np.uint16), 12, PhotometricInterpretation=photometric)
        assert np.array_equal(read_hu(path), stored)


@pytest.mark.parametrize("double", [False, True])
def test_floating_point_pixels(tmp_path: Path, double: bool) -> None:
    values = waves(12, True) / 8
    values[3, 3] = -5000
    dataset = image(Rows=32, Columns=40, BitsAllocated=64 if double else 32, RescaleSlope=2, RescaleIntercept=-100)
    name = "DoubleFloatPixel" if double else "FloatPixel"
    setattr(dataset, f"{name}Data", values.astype("<f8" if double else "<f4").tobytes())
    setattr(dataset, f"{name}PaddingValue", -5000.0)
    path = save(dataset, tmp_path / "a")
    assert len(read_headers(path)) == 1
    expected = np.rint(values * 2 - 100)
    expected[3, 3] = -32768
    assert np.array_equal(read_hu(path), expected)
    values[4, 4] = np.nan
    setattr(dataset, f"{name}Data", values.astype("<f8" if double else "<f4").tobytes())
    with pytest.raises(ScanError, match=r"IMPLAUSIBLE_HU: .* NaN"):
        read_hu(save(dataset, tmp_path / "a"))


def test_lookup_tables_and_other_quantities_are_refused(tmp_path: Path) -> None:
    stored = waves(12, False).astype(np.uint16)
    table = item(LUTDescriptor=[4096, 0, 16], LUTData=b"\0\0", ModalityLUTType="HU")
    assert refusal(write_slice(tmp_path / "a", stored, ModalityLUTSequence=[table]))[0] is RejectCode.UNSUPPORTED
    for quantity in ("Z_EFF", "ED", "PCT", "HU_MOD"):
        code, detail = refusal(write_slice(tmp_path / "a", stored, RescaleType=quantity))
        assert code is RejectCode.IMPLAUSIBLE_HU
        assert quantity in detail
    for quantity in ("HU", "US", "", "DOE^JOHN", None):
        path = write_slice(tmp_path / "a", stored, RescaleType=quantity)
        assert len(read_headers(path)) == 1
        assert np.array_equal(read_hu(path), stored)


@pytest.mark.parametrize("tag", ["RescaleSlope", "RescaleIntercept"])
def test_rescale_values_that_are_no_numbers_are_not_replaced(tmp_path: Path, tag: str) -> None:
    path = write_slice(tmp_path / "a", waves(12, False).astype(np.uint16), **{tag: "1234567.25"})
    path.write_bytes(path.read_bytes().replace(b"1234567.25", b"12,5 apple"))
    with pytest.raises(ScanError, match="UNREADABLE"):
        read_hu(path)


def test_a_slope_of_zero(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", waves(12, False).astype(np.uint16), RescaleSlope=0, RescaleIntercept=-1024)
    with pytest.raises(ScanError, match="IMPLAUSIBLE_HU"):
        read_hu(path)


def test_colors_are_refused(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", np.zeros((8, 24), np.uint8), Modality="OT")
    dataset = dcmread(path)
    dataset.SamplesPerPixel, dataset.Columns, dataset.PhotometricInterpretation = 3, 8, "RGB"
    dataset.save_as(path)
    assert [header.samples for header in read_headers(path)] == [3]
    with pytest.raises(ScanError, match="SECONDARY"):
        read_hu(path)


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: uid.name)
def test_pixels_that_are_cut_short_are_found_in_the_header(tmp_path: Path, syntax: str) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    path = write_slice(tmp_path / "a", noise, 12, syntax=syntax)
    assert len(read_headers(path)) == 1
    path.write_bytes(path.read_bytes()[:-500])
    code, detail = refusal(path)
    assert code is RejectCode.UNREADABLE
    assert "of 8192 bytes" in detail
    if syntax != DeflatedExplicitVRLittleEndian:
        assert detail == "pixel data cut short: 7692 of 8192 bytes"
    with pytest.raises(ScanError, match="cut short"):
        read_hu(path)


def test_fewer_pixels_than_the_header_says(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", waves(12, False).astype(np.uint16), 12)
    dataset = dcmread(path)
    dataset.Rows = 64
    dataset.save_as(path)
    assert refusal(path) == (RejectCode.UNREADABLE, "pixel data cut short: 2560 of 5120 bytes")


def test_compressed_pixels_that_are_cut_short(tmp_path: Path) -> None:
    plain = write_slice(tmp_path / "a", waves(12, False).astype(np.uint16), 12)
    transcode(plain, tmp_path / "b", "JPEGLosslessProcess14_1")
    content = (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_bytes(content[:-200])
    assert refusal(tmp_path / "b")[1].startswith("pixel data cut short:")
    frames = write_slice(tmp_path / "c", np.zeros((4, 8, 8), np.uint16), SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1")
    transcode(frames, tmp_path / "d", "RLELossless")
    dataset = dcmread(tmp_path / "d")
    dataset.NumberOfFrames = 9
    dataset.save_as(tmp_path / "d")
    assert refusal(tmp_path / "d")[1] == "pixel data cut short: 4 fragments of 9 frames"


def test_headers_that_are_cut_short(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", waves(12, False).astype(np.uint16), 12)
    content = path.read_bytes()
    path.write_bytes(content[:132])
    assert refusal(path)[1].startswith("header is cut short")
    path.write_bytes(content[: content.index(b"\x08\0\x16\0")])
    assert refusal(path)[1].startswith("header is cut short")
    path.write_bytes(content[: content.index(b"\x20\0\x37\0") + 20])
    assert refusal(path) == (RejectCode.UNREADABLE, "the file ends before any pixels")
    assert read_headers(save(image(Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22"), path))
    assert refusal(save(image(Rows=8, Columns=8, SOPClassUID=CTImageStorage), path))[0] is RejectCode.UNREADABLE


def test_a_damaged_slice_is_named_and_the_rest_judged_without_it(tmp_path: Path) -> None:
    hu, places = head_like(), stacked(12)
    paths = write_series(tmp_path / "in", hu, places)
    shutil.copytree(tmp_path / "in", tmp_path / "whole")
    paths[11].write_bytes(paths[11].read_bytes()[:-100])
    (scan,), (reject,) = find_scans([tmp_path / "in"])
    assert scan.facts["n_slices"] == 11
    assert (reject.code, Path(reject.path).name) == (RejectCode.UNREADABLE, "011.dcm")
    assert reject.detail == "pixel data cut short: 2460 of 2560 bytes; the rest was judged without it"
    shutil.copy(tmp_path / "whole" / "011.dcm", tmp_path / "in" / "again.dcm")
    (scan,), rejects = find_scans([tmp_path / "in"])
    assert np.array_equal(scan.load().hu, hu)
    assert [Path(reject.path).name for reject in rejects] == ["011.dcm"]
    paths[5].write_bytes(paths[5].read_bytes()[:-100])
    scans, rejects = find_scans([tmp_path / "in"])
    assert not scans
    codes = [reject.code for reject in rejects]
    assert codes == [RejectCode.UNREADABLE, RejectCode.UNREADABLE, RejectCode.GAP]


def test_a_series_that_cannot_be_decoded_is_one_reject(tmp_path: Path) -> None:
    for path in write_series(tmp_path / "in", head_like(), stacked(12)):
        encapsulate_in(path, b"stream", path, UID("1.2.840.10008.1.2.4.100"))
    scans, (reject,) = find_scans([tmp_path / "in"])
    assert not scans
    assert reject.code is RejectCode.UNSUPPORTED
    assert reject.detail.endswith("(12 of 12 images)")
    error = SliceError(
        RejectCode.UNSUPPORTED, "detail", read_headers(write_slice(tmp_path / "a", waves(8, True).astype(np.int16)))[0]
    )
    again = pickle.loads(pickle.dumps(error))  # it goes between processes
    assert (again.code, again.detail, again.where) == (error.code, error.detail, error.where)
