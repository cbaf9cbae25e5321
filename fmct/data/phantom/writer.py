"""A scan as files: a DICOM series or a NIfTI file, both with the same true geometry."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from fmct.console.errors import FmctError
from fmct.data.geometry import LPS_TO_RAS
from fmct.data.phantom.acquisition import Scan
from fmct.experiment.config import Config

UID_ROOT = "2.25"  # UUIDs as decimal numbers, PS3.5 B.2
UNSIGNED_INTERCEPT_HU = -1024
STUDY_DESCRIPTION = "CT HEAD WO CONTRAST"


class Identity(Config):
    """Whose scan it is, as headers say it. All identifiers follow from the texts given here."""

    patient_id: str
    age_years: int = Field(ge=0, le=120)
    sex: str = Field(pattern="^[FMO]$")
    study: str = Field(description="different for each visit, the same for all series of one")
    series: int = Field(2, ge=1, description="number, different for each series of a study")
    study_date: str = Field("20200101", pattern=r"^\d{8}$")

    @property
    def study_uid(self) -> UID:
        """StudyInstanceUID."""
        return uid("study", self.patient_id, self.study)

    @property
    def series_uid(self) -> UID:
        """SeriesInstanceUID."""
        return uid("series", self.patient_id, self.study, str(self.series))


def uid(*parts: str) -> UID:
    """Return a UID that follows from the parts alone: the same scan always has the same."""
    digest = hashlib.sha256("/".join(parts).encode()).digest()[:16]
    return UID(f"{UID_ROOT}.{int.from_bytes(digest, 'big')}")


def write_dicom(scan: Scan, folder: Path, identity: Identity) -> None:
    """Write a scan as a series of CT images, one file per slice, numbered in order of acquisition.

    Args:
        scan: what to write.
        folder: made for it.
        identity: whose it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dataset = series_header(scan, identity)
    pixels = stored_pixels(scan)
    normal = np.cross(scan.row_cosine, scan.column_cosine)
    for k, origin in enumerate(scan.origins_mm):
        instance = uid("instance", identity.series_uid, str(k))
        dataset.file_meta.MediaStorageSOPInstanceUID = instance
        dataset.SOPInstanceUID = instance
        dataset.InstanceNumber = k + 1
        dataset.AcquisitionNumber = k + 1
        dataset.SliceThickness = f"{scan.protocol.slice_mm[k]:.6g}"
        dataset.SliceLocation = f"{float(origin @ normal):.4f}"
        dataset.ImagePositionPatient = [f"{p:.5f}" for p in origin]
        dataset.PixelData = pixels[k].tobytes()
        dataset.save_as(folder / f"{k + 1:04d}.dcm", enforce_file_format=True)


def series_header(scan: Scan, identity: Identity) -> Dataset:
    """Return all that the slices of a series have in common."""
    scanner, protocol = scan.scanner, scan.protocol
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = identity.study_date
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "120000"
    dataset.AccessionNumber = ""
    dataset.Modality = "CT"
    dataset.Manufacturer = scanner.manufacturer
    dataset.ManufacturerModelName = scanner.model
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = STUDY_DESCRIPTION
    dataset.SeriesDescription = f"Head {min(protocol.slice_mm):g} mm {scanner.kernel}"
    dataset.PatientName = f"PHANTOM^{identity.patient_id}"
    dataset.PatientID = identity.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = identity.sex
    dataset.PatientAge = f"{identity.age_years:03d}Y"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "synthetic: there is no such patient"
    dataset.BodyPartExamined = "HEAD"
    dataset.KVP = str(protocol.kvp)
    dataset.GantryDetectorTilt = f"{protocol.tilt_deg:g}"
    dataset.ConvolutionKernel = scanner.kernel
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID = identity.study_uid
    dataset.SeriesInstanceUID = identity.series_uid
    dataset.StudyID = identity.study[:16]
    dataset.SeriesNumber = identity.series
    dataset.ImageOrientationPatient = [f"{c:.8f}" for c in (*scan.row_cosine, *scan.column_cosine)]
    dataset.FrameOfReferenceUID = uid("frame", identity.study_uid)
    dataset.PositionReferenceIndicator = ""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = protocol.matrix
    dataset.PixelSpacing = [f"{protocol.pixel_mm:.7g}"] * 2
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16 if scanner.signed else 12
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(scanner.signed)
    if scanner.padding_hu is not None:
        dataset.PixelPaddingValue = scanner.padding_hu - intercept_hu(scan)
    dataset.WindowCenter, dataset.WindowWidth = "40", "80"
    dataset.RescaleIntercept = str(intercept_hu(scan))
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "HU"
    return dataset


def intercept_hu(scan: Scan) -> int:
    """Return what is added to stored values to have HU."""
    return 0 if scan.scanner.signed else UNSIGNED_INTERCEPT_HU


def stored_pixels(scan: Scan) -> NDArray[np.int16] | NDArray[np.uint16]:
    """Return the values as they stand in the files, (K, R, C) little endian."""
    stored = scan.hu - np.int16(intercept_hu(scan))
    return stored.astype("<i2" if scan.scanner.signed else "<u2")


def affine_ras(scan: Scan) -> NDArray[np.float64]:
    """Return the (4, 4) affine from voxel indices (column, row, slice) to RAS mm, sheared where the gantry was tilted.

    Raises:
        FmctError: for uneven slices, whose places no affine can say.
    """
    if not scan.protocol.even:
        what = "a NIfTI file can't hold slices of uneven thickness or distance"
        raise FmctError(what, f"a protocol of {scan.scanner.name}", "draw the protocol with even=True, or write DICOM")
    origins, pixel = scan.origins_mm, scan.protocol.pixel_mm
    affine = np.eye(4)
    affine[:3, 0] = scan.row_cosine * pixel
    affine[:3, 1] = scan.column_cosine * pixel
    affine[:3, 2] = (origins[-1] - origins[0]) / (len(origins) - 1)
    affine[:3, 3] = origins[0]
    affine[:3] *= LPS_TO_RAS[:, None]
    return affine


def write_nifti(scan: Scan, path: Path) -> None:
    """Write a scan as int16 HU with its exact affine in the sform; the qform holds the nearest rotation.

    Raises:
        FmctError: for uneven slices.
    """
    save_image(np.ascontiguousarray(scan.hu.transpose(2, 1, 0)), affine_ras(scan), path, b"synthetic head CT")


def save_image(
    values: NDArray[np.int16 | np.uint8], affine: NDArray[np.float64], path: Path, description: bytes
) -> None:
    """Write (X, Y, Z) values as NIfTI."""
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1, strip_shears=True)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
