"""Damages files at random and reads them: run as a program, for the memory limit holds for a whole process.

`python tests/mutated_files.py FOLDER COUNT SEED` prints what came out, as JSON.
"""

from __future__ import annotations

import json
import random
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from single_files import item, multi_frame, save, transcode, waves, write_slice

from fmct.data.dicom import has_prefix, read_headers, read_hu
from fmct.data.nifti import load_nifti, open_nifti
from fmct.data.rejection import ScanError

MEMORY_BYTES = 2 << 30
NASTY = (b"\xff\xff\xff\xff", b"\xf0\xff\xff\x7f", b"\0\0\0\0", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", b"\xff\xff")


def originals(folder: Path) -> list[Path]:
    """Sound files in many encodings."""
    paths = []
    stored = waves(12, signed=False, rows=16, columns=20).astype(np.uint16)
    private = [item(PatientComments="x" * 40, RequestAttributesSequence=[item(PatientComments="y")])]
    tags = {
        "PixelPaddingValue": 63536, "RescaleIntercept": -1024, "RescaleSlope": 1, "OtherPatientIDsSequence": private,
    }  # fmt: skip
    for syntax in (
        ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian
    ):  # fmt: skip
        paths.append(write_slice(folder / f"{syntax.name}.dcm", stored, 12, syntax=syntax, **tags))
    for name in (
        "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"
    ):  # fmt: skip
        paths.append(folder / f"{name}.dcm")
        assert transcode(paths[0], paths[-1], name)
    small = write_slice(folder / "8bit.dcm", waves(8, False, 16, 20).astype(np.uint8))
    paths.append(folder / "JPEGBaselineProcess1.dcm")
    assert transcode(small, paths[-1], "JPEGBaselineProcess1")
    frames = multi_frame(np.stack([stored] * 4), np.arange(12).reshape(4, 3).astype(float))
    paths.append(save(frames, folder / "enhanced.dcm"))
    paths.append(save(frames, folder / "enhanced_implicit.dcm", ImplicitVRLittleEndian))
    paths.append(folder / "enhanced_lossless.dcm")
    assert transcode(paths[-3], paths[-1], "JPEGLosslessProcess14_1")
    bare = Dataset()
    bare.update(dcmread(paths[0]))
    bare.save_as(folder / "bare.dcm", implicit_vr=True, little_endian=True)
    paths.append(folder / "bare.dcm")
    hu = waves(12, True, 12, 12)[..., None].repeat(10, axis=2)
    for name, kind, dtype in (
        ("a.nii", nib.Nifti1Image, np.int16), ("b.nii.gz", nib.Nifti1Image, np.float32),
        ("c.nii.gz", nib.Nifti2Image, np.uint16), ("d.nii", nib.Nifti2Image, np.float64),
    ):  # fmt: skip
        image = kind(hu.astype(dtype), np.diag([1.0, 1, 2, 1]))
        image.header.set_slope_inter(2, -24)
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"some words"))
        nib.save(image, folder / name)
        paths.append(folder / name)
    return paths


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One damaged copy."""
    copy = bytearray(content)
    head = min(len(copy), rng.choice([160, 400, 1200, len(copy)]))
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        place = rng.randrange(max(min(head, len(copy)), 1))
        match rng.randrange(8):
            case 0 | 1 | 2:
                copy[place : place + 1] = bytes([copy[place] ^ (1 << rng.randrange(8))] if place < len(copy) else [])
            case 3:
                copy[place : place + 1] = rng.randbytes(1)
            case 4:
                piece = rng.choice(NASTY)
                copy[place : place + len(piece)] = piece
            case 5:
                copy[place:place] = rng.randbytes(rng.randrange(9)) + rng.choice(NASTY)
            case 6:
                del copy[place : place + rng.randrange(40)]
            case 7:
                copy[place : place + 2] = struct.pack("<H", rng.choice([0, 1, 8, 0x7FFF, 0xFFFF]))
    return bytes(copy[: rng.randrange(len(copy) + 1)] if rng.random() < 0.15 else copy)


def outcomes(path: Path) -> Iterator[str]:
    """What the readers make of a file: "fine" or a code for each; any other error goes through."""
    readers = (open_nifti, load_nifti) if ".nii" in path.name else (headers_of, read_hu)
    for reader in readers:
        try:
            reader(path)
            yield f"{reader.__name__} fine"
        except ScanError as error:
            if "MemoryError" in error.detail:
                raise MemoryError(error.detail) from error
            yield f"{reader.__name__} {error.code}"


def headers_of(path: Path) -> None:
    """Read headers as the search for series does."""
    prefixed = has_prefix(path)
    if prefixed is not None:
        read_headers(path, prefixed)


def main(folder: Path, count: int, seed: int) -> None:
    """Damage and read so many files."""
    paths = originals(folder)
    for path in paths:
        assert all(outcome.endswith("fine") for outcome in outcomes(path)), (path, list(outcomes(path)))
    contents = [path.read_bytes() for path in paths]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    found: Counter[str] = Counter()
    slowest, slowest_name = 0.0, ""
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        which = number % len(paths)
        path = folder / f"mutated_{paths[which].name}"
        path.write_bytes(mutated(contents[which], rng))
        start = time.perf_counter()
        try:
            found.update(outcomes(path))
        except BaseException:
            print(f"file {number}: {path}", file=sys.stderr)
            raise
        seconds = time.perf_counter() - start
        if seconds > slowest:
            slowest, slowest_name = seconds, f"{number} {path.name}"
    print(json.dumps({**found, "slowest_s": slowest, "slowest": slowest_name}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
