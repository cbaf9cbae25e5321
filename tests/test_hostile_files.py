"""Files made to break readers are refused with figures: before memory is taken, without a crash, in little time."""

from __future__ import annotations

import gzip
import json
import os
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)
from single_files import encapsulate_in, image, multi_frame, save, transcode, waves, write_slice

from fmct.data import bounded_readers, elements, gdcm_decoding
from fmct.data.dicom import read_headers, read_hu
from fmct.data.gdcm_decoding import DecoderError, gdcm_pixels
from fmct.data.nifti import load_nifti, open_nifti
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.streams import stream_facts

LITTLE_MEMORY_BYTES = 48 << 20


def refused(read: Callable[[Path], Any], path: Path) -> tuple[RejectCode, str]:
    """What a reader raises, after it has been seen to take little memory and time."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(ScanError) as caught:
            read(path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < LITTLE_MEMORY_BYTES
    assert time.perf_counter() - start < 20
    return caught.value.code, caught.value.detail


def slice_file(path: Path, **tags: Any) -> Path:
    return write_slice(path, waves(12, False).astype(np.uint16), 12, **tags)


def changed(path: Path, **tags: Any) -> Path:
    dataset = dcmread(path)
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    "claims",
    [{"Rows": 65535}, {"Columns": 5000}, {"NumberOfFrames": 2**31 - 1}, {"Rows": 4096, "NumberOfFrames": 20000}],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_absurd_sizes(tmp_path: Path, claims: dict[str, int], compressed: bool) -> None:
    path = slice_file(tmp_path / "a")
    if compressed:
        transcode(tmp_path / "a", tmp_path / "b", "JPEG2000Lossless")
        path = tmp_path / "b"
    changed(path, **claims)
    for read in (read_headers, read_hu):
        code, detail = refused(read, path)
        assert code is RejectCode.TOO_LARGE
        assert str(next(iter(claims.values()))) in detail


def test_frames_that_are_no_number(tmp_path: Path) -> None:
    path = slice_file(tmp_path / "a", NumberOfFrames=1111)
    path.write_bytes(path.read_bytes().replace(b"1111", b"many"))
    assert refused(read_headers, path)[0] is RejectCode.UNREADABLE
    assert len(read_headers(slice_file(tmp_path / "a", NumberOfFrames=0))) == 1


@pytest.mark.parametrize("implicit", [False, True])
def test_elements_that_claim_four_gigabytes(tmp_path: Path, implicit: bool) -> None:
    path = slice_file(tmp_path / "a", syntax=ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian)
    content = path.read_bytes()
    place = content.index(b"\x18\0\x60\0")  # KVP
    head = b"\x18\0\x60\0" + (b"" if implicit else b"UT\0\0") + struct.pack("<L", 0xFFFFFFF0)
    path.write_bytes(content[:place] + head + content[place + 8 :])
    assert refused(read_headers, path)[0] is RejectCode.UNREADABLE
    path.write_bytes(content[:place] + head + content[place + 8 :] + bytes(1 << 17))  # longer than the first read
    assert refused(read_headers, path)[0] is RejectCode.UNREADABLE


def test_pixels_that_claim_four_gigabytes(tmp_path: Path) -> None:
    path = slice_file(tmp_path / "a")
    content = path.read_bytes()
    place = content.index(b"\xe0\x7f\x10\0OW")
    path.write_bytes(content[: place + 8] + struct.pack("<L", 0xFFFFFFF0) + content[place + 12 :])
    assert np.array_equal(read_hu(path), waves(12, False))  # all are there, and no more is read than is needed
    path.write_bytes(path.read_bytes()[:-10])
    assert refused(read_hu, path) == (RejectCode.UNREADABLE, "pixel data cut short: 2550 of 2560 bytes")


def nested(depth: int) -> bytes:
    """Sequences of undefined length, one in the other."""
    return (b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff") * depth


@pytest.mark.parametrize("depth", [100, 20_000])
def test_sequences_nested_deeply(tmp_path: Path, depth: int) -> None:
    path = slice_file(tmp_path / "a")
    content = path.read_bytes()
    place = content.index(b"\x08\0\x60\0CS")
    ends = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" * depth
    path.write_bytes(content[:place] + nested(depth) + ends + content[place:])
    if depth < 1000:
        assert len(read_headers(path)) == 1
    else:
        assert refused(read_headers, path)[0] is RejectCode.UNREADABLE


@pytest.mark.parametrize("defined", [False, True])
def test_sequences_of_countless_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defined: bool) -> None:
    """Empty items take 8 bytes each in the file and some hundred in memory."""
    monkeypatch.setattr(bounded_readers, "MOST_READS", 20_000)
    monkeypatch.setattr(elements, "MOST_ITEMS", 20_000)
    path = save(multi_frame(np.zeros((2, 8, 8), np.int16), np.zeros((2, 3))), tmp_path / "a")
    assert len(read_headers(path)) == 2
    content = path.read_bytes()
    place = content.index(b"\0\x52\x30\x92SQ\0\0")
    empty = b"\xfe\xff\0\xe0\0\0\0\0" * 30_000
    length = struct.pack("<L", len(empty)) if defined else b"\xff\xff\xff\xff"
    end = b"" if defined else b"\xfe\xff\xdd\xe0\0\0\0\0"
    path.write_bytes(content[: place + 8] + length + empty + end + content[content.index(b"\xe0\x7f\x10\0OW") :])
    code, _ = refused(read_headers, path)
    assert code is (RejectCode.UNREADABLE if defined else RejectCode.TOO_LARGE)


def deflated(path: Path, body: bytes) -> Path:
    """A file with the deflated syntax and anything for a data set."""
    save(image(), path, DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    meta_bytes = struct.unpack("<L", content[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(content[: 144 + meta_bytes] + packer.compress(body) + packer.flush())
    return path


def test_deflated_bombs(tmp_path: Path) -> None:
    plain = slice_file(tmp_path / "a").read_bytes()
    body = plain[144 + struct.unpack("<L", plain[140:144])[0] :]
    bomb = deflated(tmp_path / "b", body + bytes(400 << 20))  # behind the pixels: never inflated
    assert bomb.stat().st_size < 1 << 20
    assert np.array_equal(read_hu(bomb), waves(12, False))
    assert len(read_headers(bomb)) == 1
    place = body.index(b"\x18\0\x60\0")
    swollen = body[:place] + b"\x17\0\0\0UN\0\0" + struct.pack("<L", 400 << 20) + bytes(400 << 20) + body[place:]
    assert refused(read_headers, deflated(tmp_path / "c", swollen))[0] is RejectCode.TOO_LARGE
    assert refused(read_hu, tmp_path / "c")[0] is RejectCode.TOO_LARGE
    short = deflated(tmp_path / "d", body[:-500])
    assert refused(read_headers, short) == (RejectCode.UNREADABLE, "pixel data cut short: 2060 of 2560 bytes")
    short.write_bytes(bomb.read_bytes()[:600])
    assert refused(read_headers, short)[0] is RejectCode.UNREADABLE


def stream_of(folder: Path, syntax: str) -> tuple[Path, bytes]:
    """A compressed file and its stream."""
    slice_file(folder / "plain")
    path = folder / syntax
    assert transcode(folder / "plain", path, syntax)
    return path, get_frame(dcmread(path).PixelData, 0, number_of_frames=1)


def test_streams_that_claim_other_sizes(tmp_path: Path) -> None:
    path, stream = stream_of(tmp_path, "JPEG2000Lossless")
    syntax = dcmread(path).file_meta.TransferSyntaxUID
    for rows, columns, code in (
        (60000, 60000, RejectCode.TOO_LARGE), (2**31, 40, RejectCode.TOO_LARGE), (33, 40, RejectCode.UNREADABLE)
    ):  # fmt: skip
        size = struct.pack(">2L", columns, rows)
        lying = stream[:8] + size + stream[16:24] + size + stream[32:]
        assert refused(read_hu, encapsulate_in(tmp_path / "x", lying, path, syntax))[0] is code
    large = struct.pack(">2L", 4096, 4096)
    assert stream_facts(stream[:8] + large + stream[16:24] + large + stream[32:]) is not None
    assert stream_facts(stream[:8] + large + stream[16:24] + struct.pack(">2L", 9, 9) + stream[32:]) is None
    path, stream = stream_of(tmp_path, "JPEGLosslessProcess14_1")
    place = stream.index(b"\xff\xc3") + 5
    for rows, code in ((65000, RejectCode.TOO_LARGE), (31, RejectCode.UNREADABLE)):
        lying = stream[:place] + struct.pack(">H", rows) + stream[place + 2 :]
        assert refused(read_hu, encapsulate_in(tmp_path / "x", lying, path, JPEGLosslessSV1))[0] is code
    eight = changed(encapsulate_in(tmp_path / "x", stream, path, JPEGLosslessSV1), BitsAllocated=8, BitsStored=8)
    assert refused(read_hu, changed(eight, HighBit=7))[0] is RejectCode.UNREADABLE
    for nothing in (b"", b"\xff\xd8", b"\xff\xd8\xff\xff\xff\xff", b"\xff\xd8\xff\xc0\0\x08\x08", b"\xff\x4f\xff\x51"):
        wrong = encapsulate_in(tmp_path / "x", nothing, path, JPEGLosslessSV1)
        assert refused(read_hu, wrong)[0] is RejectCode.UNREADABLE


def test_a_decoder_that_dies_takes_nothing_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = stream_of(tmp_path, "JPEGLosslessProcess14_1")
    read_hu(path)
    worker = gdcm_decoding.running
    assert worker is not None
    worker.process.kill()
    worker.process.wait()
    assert np.array_equal(read_hu(path), waves(12, False))
    assert gdcm_decoding.running is not worker
    monkeypatch.setattr(gdcm_decoding, "SECONDS_PER_FRAME", 0.0)
    with pytest.raises(DecoderError, match="died"):
        gdcm_pixels(b"\xff\xd8" + bytes(64 << 20), JPEGLosslessSV1, 32, 40, 12)
    monkeypatch.undo()
    assert np.array_equal(read_hu(path), waves(12, False))


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGLSLossless"])
def test_damaged_streams_for_gdcm(tmp_path: Path, syntax: str) -> None:
    """GDCM aborts on some of these; here they are frames that can't be decoded, or decode to something of that size."""
    path, stream = stream_of(tmp_path, syntax)
    uid = dcmread(path).file_meta.TransferSyntaxUID
    good = read_hu(path)
    rng = random.Random(0)
    refusals = 0
    for _ in range(150):
        copy = bytearray(stream)
        for _ in range(rng.choice([1, 4, 16])):
            copy[rng.randrange(len(copy))] = rng.randrange(256)
        try:
            assert gdcm_pixels(bytes(copy), uid, 32, 40, 12).shape == (32, 40)
        except DecoderError:
            refusals += 1
    assert refusals > 0
    assert np.array_equal(read_hu(path), good)


def test_no_warning_quotes_a_header(tmp_path: Path) -> None:
    path = slice_file(tmp_path / "a", PatientAge="058Y", StudyDescription="DOE HEAD")
    content = path.read_bytes().replace(b"058Y", b"\xffJOH").replace(b"DS\x04\x00120 ", b"DS\x04\x00DOE ")
    path.write_bytes(content.replace(ExplicitVRLittleEndian.encode(), b"1.2.840.10008.1.2.."))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (read_headers, read_hu):
            with pytest.raises(ScanError) as caught:
                read(path)
            assert "DOE" not in str(caught.value)


def nifti(path: Path, voxels: np.ndarray | None = None, affine: np.ndarray | None = None, **fields: Any) -> Path:
    """A NIfTI-1 file of which some header fields are overwritten; compressed by its name."""
    voxels = head() if voxels is None else voxels
    made = nib.Nifti1Image(voxels, np.diag([1.0, 1, 2, 1]) if affine is None else affine)
    content = bytearray(made.to_bytes())
    header = np.frombuffer(content, nib.nifti1.header_dtype, 1).copy()
    for field, value in fields.items():
        header[field] = value
    content[:348] = header.tobytes()
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


def head() -> np.ndarray:
    return waves(12, True, 12, 14)[..., None].repeat(10, axis=2).astype(np.int16)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, RejectCode.TOO_LARGE),
        ({"dim": [3, 1024, 1024, 1024, 1, 1, 1, 1]}, RejectCode.UNREADABLE),
        ({"dim": [3, -12, 14, 10, 1, 1, 1, 1]}, RejectCode.UNREADABLE),
        ({"dim": [3, 12, 0, 10, 1, 1, 1, 1]}, RejectCode.UNREADABLE),
        ({"dim": [9, 12, 14, 10, 1, 1, 1, 1]}, RejectCode.UNREADABLE),
        ({"dim": [4, 12, 14, 10, 3, 1, 1, 1]}, RejectCode.SECONDARY),
        ({"dim": [2, 12, 14, 1, 1, 1, 1, 1]}, RejectCode.SECONDARY),
        ({"vox_offset": 3e38}, RejectCode.TOO_LARGE),
        ({"vox_offset": np.nan}, RejectCode.UNREADABLE),
        ({"vox_offset": -1}, RejectCode.UNREADABLE),
        ({"vox_offset": 100}, RejectCode.UNREADABLE),
        ({"datatype": 128}, RejectCode.SECONDARY),
        ({"datatype": 32}, RejectCode.SECONDARY),
        ({"datatype": 999}, RejectCode.UNREADABLE),
        ({"magic": b"ni1"}, RejectCode.UNREADABLE),
        ({"magic": b"abc"}, RejectCode.UNREADABLE),
        ({"sizeof_hdr": 7}, RejectCode.UNREADABLE),
        ({"srow_x": [np.nan, 0, 0, 0]}, RejectCode.NO_GEOMETRY),
        ({"srow_x": [np.inf, 0, 0, 0]}, RejectCode.NO_GEOMETRY),
        ({"srow_x": [0, 0, 0, 0]}, RejectCode.NO_GEOMETRY),
        ({"srow_x": [1e-30, 0, 0, 0]}, RejectCode.NO_GEOMETRY),
        ({"srow_x": [1, 0, 0, 1e30]}, RejectCode.NO_GEOMETRY),
        ({"sform_code": 0, "qform_code": 0}, RejectCode.NO_GEOMETRY),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 5}, RejectCode.NO_GEOMETRY),
    ],
    ids=str,
)
def test_absurd_nifti_headers(tmp_path: Path, name: str, fields: dict[str, Any], code: RejectCode) -> None:
    assert open_nifti(nifti(tmp_path / name)).shape == (12, 14, 10)
    for read in (open_nifti, load_nifti):
        assert refused(read, nifti(tmp_path / name, **fields))[0] is code


@pytest.mark.parametrize(
    "fields", [{"scl_slope": np.inf}, {"scl_slope": 1, "scl_inter": np.nan}, {"scl_slope": -np.inf}]
)
def test_scaling_that_is_not_finite(tmp_path: Path, fields: dict[str, float]) -> None:
    assert refused(load_nifti, nifti(tmp_path / "a.nii", **fields))[0] is RejectCode.IMPLAUSIBLE_HU


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_a_slope_that_means_none(tmp_path: Path, slope: float) -> None:
    plain, odd = nifti(tmp_path / "a.nii"), nifti(tmp_path / "b.nii", scl_slope=slope, scl_inter=np.nan)
    assert np.array_equal(load_nifti(plain).hu, load_nifti(odd).hu)


def test_voxels_that_are_not_finite(tmp_path: Path) -> None:
    for bad in (np.nan, np.inf):
        voxels = head().astype(np.float32)
        voxels[3, 3, 3] = bad
        code, detail = refused(load_nifti, nifti(tmp_path / "a.nii.gz", voxels))
        assert code is RejectCode.IMPLAUSIBLE_HU
        assert detail == "0.06 % of values are NaN or infinite"


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "<u2", ">u2", "<i4", "<u4", "<i8", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize(("slope", "intercept"), [(None, None), (2, -24), (0.5, 0.25)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_any_type_of_voxels(
    tmp_path: Path, dtype: str, slope: float | None, intercept: float | None, kind: type[nib.Nifti1Image]
) -> None:
    values = np.random.default_rng(0).integers(0, 127, (9, 8, 10))
    header = kind.header_class(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(np.dtype(dtype))
    made = kind(values.astype(dtype), np.diag([1.0, 1, 2, 1]), header)
    made.header.set_slope_inter(slope, intercept)
    content = made.to_bytes()
    expected = np.rint(kind.from_bytes(content).get_fdata()).transpose(2, 1, 0)
    for name in ("a.nii", "a.nii.gz"):  # whatever the name says of compression
        for stored in (content, gzip.compress(content)):
            (tmp_path / name).write_bytes(stored)
            assert np.array_equal(load_nifti(tmp_path / name).hu, np.clip(expected, -32767, 32767))


def test_nifti_bombs(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz")
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(300 << 20), 9))
    assert open_nifti(path).shape == (12, 14, 10)
    code, detail = refused(load_nifti, path)
    assert code is RejectCode.TOO_LARGE
    assert "of its voxels" in detail
    claims = nifti(tmp_path / "b.nii.gz", dim=[3, 1000, 1000, 1000, 1, 1, 1, 1])
    code, detail = refused(open_nifti, claims)
    assert code is RejectCode.UNREADABLE
    assert "cut short: at most" in detail
    for size in (-8, 0, 4, 2**31 - 1):  # an extension of such a length makes nibabel read to the end
        extended = bytearray(content)
        extended[348:352] = b"\x01\0\0\0"
        extended[352:352] = struct.pack("<ii", size, 6) + bytes(1016)
        extended[108:112] = struct.pack("<f", 352 + 1024)
        path.write_bytes(gzip.compress(bytes(extended) + bytes(300 << 20), 9))
        assert open_nifti(path).shape == (12, 14, 10)
        assert refused(load_nifti, path)[0] is RejectCode.TOO_LARGE
        path.write_bytes(gzip.compress(bytes(extended)))
        assert np.array_equal(load_nifti(path).hu, head().transpose(2, 1, 0))


def test_nifti_files_that_are_cut_short_or_damaged(tmp_path: Path) -> None:
    plain = nifti(tmp_path / "a.nii")
    plain.write_bytes(plain.read_bytes()[:-100])
    assert refused(open_nifti, plain) == (RejectCode.UNREADABLE, "voxels cut short: 3612 of 3712 bytes")
    packed = nifti(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 999, (32, 32, 32)).astype(np.int16))
    content = packed.read_bytes()
    packed.write_bytes(content[: len(content) // 2])
    assert refused(load_nifti, packed)[0] is RejectCode.UNREADABLE
    flipped = bytearray(content)
    flipped[-5000] ^= 1  # inflates to the right size; only the checksum tells
    packed.write_bytes(bytes(flipped))
    assert refused(load_nifti, packed)[0] is RejectCode.UNREADABLE
    packed.write_bytes(b"\x1f\x8b" + bytes(40))
    assert refused(open_nifti, packed)[0] is RejectCode.UNREADABLE
    packed.write_bytes(b"")
    assert refused(open_nifti, packed)[0] is RejectCode.EMPTY
    assert refused(open_nifti, tmp_path / "nowhere.nii")[0] is RejectCode.UNREADABLE


def fuzz(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Run `mutated_files` and return what it counted."""
    program = Path(__file__).parent / "mutated_files.py"
    paths = [str(Path(__file__).parent.parent), str(program.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(program), str(folder), str(count), str(seed)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True, timeout=60 + count / 20,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr
    counted: dict[str, Any] = json.loads(done.stdout)
    return counted


def check(counted: dict[str, Any], count: int) -> None:
    """Everything was read or refused in little time, within the memory allowed, and both happened often."""
    for reader in ("headers_of", "read_hu", "open_nifti", "load_nifti"):
        outcomes = {key: n for key, n in counted.items() if key.startswith(f"{reader} ")}
        files = count * (13 if reader in {"headers_of", "read_hu"} else 4) / 17
        assert sum(outcomes.values()) == pytest.approx(files, abs=18)
        assert outcomes[f"{reader} fine"] > 0.1 * files
        assert outcomes[f"{reader} UNREADABLE"] > 0.1 * files
    assert counted["slowest_s"] < 10


def test_files_damaged_at_random(tmp_path: Path) -> None:
    check(fuzz(tmp_path, 4000, seed=0), 4000)


@pytest.mark.slow
def test_many_files_damaged_at_random(tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        check(fuzz(tmp_path / str(seed), 20_000, seed), 20_000)
