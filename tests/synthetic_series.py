"""Small DICOM series with a known geometry, for the tests of reading and preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def tilted(degrees: float) -> tuple[float, ...]:
    """The orientation (LPS) of slices of a gantry tilted about x."""
    angle = np.radians(degrees)
    return (1.0, 0.0, 0.0, 0.0, round(float(np.cos(angle)), 6), round(float(-np.sin(angle)), 6))


SKULL_PIXEL_MM = (6.0, 4.5)
SKULL_GAP_MM = 7.0


def head_like(slices: int = 12, rows: int = 32, columns: int = 40, seed: int = 0) -> np.ndarray:
    """A noisy head for rules that look at pixels, 172 x 161 mm at `SKULL_PIXEL_MM`: (K, J, I) int16.

    An ellipsoid of 40 HU in a shell of bone of 900 HU, 9 mm thick, in air. Write it with `pixel_mm=SKULL_PIXEL_MM` at
    positions `stacked(slices, SKULL_GAP_MM)`; pixels and gaps may differ as long as it stays as large as a head.
    """
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, n) for n in (slices, rows, columns)]
    level = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))
    hu = np.select([level < 0.63, level < 0.8], [40, 900], -1000)
    return hu.astype(np.int16) + rng.integers(-9, 9, hu.shape).astype(np.int16)


def write_series(
    folder: Path,
    hu: np.ndarray,
    positions_lps: np.ndarray,
    orientation: Sequence[float] = AXIAL,
    pixel_mm: tuple[float, float] = (6.0, 4.5),
    intercept: float | None = -1024,
    names: Sequence[str] | None = None,
    **tags: Any,
) -> list[Path]:
    """Write slices (K, J, I) as files; `pixel_mm` is (between rows, between columns), `tags` override the header's.

    A tag whose value is None is left out; a list has one value for each slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    common = {
        "SOPClassUID": CTImageStorage,
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PatientID": "MRN0012345",
        "PatientName": "DOE^JOHN",
        "PatientBirthDate": "19610203",
        "PatientAge": "058Y",
        "PatientSex": "M",
        "StudyDate": "20190405",
        "StudyDescription": "DOE HEAD W/O",
        "Manufacturer": "ACME",
        "KVP": "120",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "InstanceNumber": 1,
    }
    paths = []
    for k, plane in enumerate(hu):
        values = {**common, "SOPInstanceUID": generate_uid(), **tags}
        dataset = Dataset()
        for tag, value in values.items():
            one = value[k] if isinstance(value, list) and tag != "ImageType" else value
            if one is not None:
                setattr(dataset, tag, one)
        dataset.Rows, dataset.Columns = plane.shape
        if "PixelSpacing" not in tags:
            dataset.PixelSpacing = list(pixel_mm)
        if "ImagePositionPatient" not in tags:
            dataset.ImagePositionPatient = [round(float(x), 5) for x in positions_lps[k]]
        if "ImageOrientationPatient" not in tags:
            dataset.ImageOrientationPatient = list(orientation)
        if intercept is not None:
            dataset.RescaleSlope, dataset.RescaleIntercept = 1, intercept
        dataset.PixelData = (plane - (intercept or 0)).astype("<i2").tobytes()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        paths.append(folder / (names[k] if names else f"{k:03d}.dcm"))
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def stacked(slices: int, gap_mm: float = 8.0, first: Sequence[float] = (-90.0, -90.0, 0.0)) -> np.ndarray:
    """Positions (K, 3) of slices that follow each other along z."""
    return np.asarray(first) + np.arange(slices)[:, None] * np.array([0.0, 0.0, gap_mm])
