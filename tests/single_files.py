"""Single DICOM and NIfTI files in any encoding, written for the tests of reading."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

AXIAL = [1, 0, 0, 0, 1, 0]


def image(**tags: Any) -> Dataset:
    """A CT image without pixels; a tag whose value is None is left out."""
    dataset = Dataset()
    common = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PatientID": "MRN0012345",
        "KVP": "120",
        "ConvolutionKernel": "H30s",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelSpacing": [0.5, 0.5],
        "ImagePositionPatient": [-10, -10, 7.5],
        "ImageOrientationPatient": AXIAL,
    }
    for tag, value in {**common, **tags}.items():
        if value is not None:
            setattr(dataset, tag, value)
    return dataset


def save(dataset: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> Path:
    """Write a data set with file meta information."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_slice(
    path: Path,
    stored: np.ndarray,
    bits: int | None = None,
    signed: bool | None = None,
    syntax: UID = ExplicitVRLittleEndian,
    **tags: Any,
) -> Path:
    """Write an uncompressed slice (rows, columns) or file of frames (frames, rows, columns), bytes as they are."""
    dataset = image(**tags)
    if stored.ndim == 3:
        dataset.NumberOfFrames = len(stored)
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored = bits or dataset.BitsAllocated
    if "HighBit" not in tags:
        dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i" if signed is None else signed)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    content = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"
    return save(dataset, path, syntax)


def transcode(source: Path, target: Path, syntax: str) -> bool:
    """Compress a file with GDCM; False where GDCM has no encoder for such pixels."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    if not change.Change():
        return False
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    return bool(writer.Write())


def encapsulate_in(path: Path, stream: bytes, like: Path, syntax: UID, **tags: Any) -> Path:
    """Replace the pixels of a file by one compressed stream."""
    dataset = dcmread(like)
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    padded = stream + b"\0" * (len(stream) % 2)
    dataset.PixelData = struct.pack("<HHLHHL", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, len(padded)) + padded
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


def waves(bits: int, signed: bool, rows: int = 32, columns: int = 40, seed: int = 0) -> np.ndarray:
    """A smooth picture with a noisy patch that uses all of the range: (rows, columns) int64."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    y, x = np.mgrid[:rows, :columns]
    smooth = np.rint(low + (high - low) * (0.5 + 0.45 * np.sin(x / 7) * np.cos(y / 6))).astype(np.int64)
    smooth[1:5, 2:6] = np.random.default_rng(seed).integers(low, high, (4, 4))
    smooth[0, :2] = low, high
    return smooth


def multi_frame(stored: np.ndarray, positions: np.ndarray, **tags: Any) -> Dataset:
    """An Enhanced CT data set of frames (K, J, I) at positions (K, 3), with one item of groups for each."""
    dataset = image(
        **{
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1",
            "PixelSpacing": None, "ImagePositionPatient": None, "ImageOrientationPatient": None,
            "KVP": None, "ConvolutionKernel": None, **tags,
        }
    )  # fmt: skip
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = dataset.BitsStored = 8 * stored.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    shared = Dataset()
    shared.PixelMeasuresSequence = [item(PixelSpacing=[6.0, 4.5], SliceThickness=5)]
    shared.PlaneOrientationSequence = [item(ImageOrientationPatient=AXIAL)]
    shared.CTXRayDetailsSequence = [item(KVP=100)]
    shared.CTReconstructionSequence = [item(ConvolutionKernel="J40s")]
    shared.CTImageFrameTypeSequence = [item(FrameType=["ORIGINAL", "PRIMARY", "AXIAL", "NONE"])]
    shared.PixelValueTransformationSequence = [item(RescaleIntercept=-1024, RescaleSlope=1, RescaleType="HU")]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[round(float(x), 4) for x in place])])
        for place in positions
    ]
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def item(**tags: Any) -> Dataset:
    """An item of a sequence."""
    dataset = Dataset()
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    return dataset
