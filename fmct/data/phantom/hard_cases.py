"""Series that no one should train on, as every archive has them: an indexer must reject these, each for its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fmct.data.phantom.acquisition import Scan, acquire
from fmct.data.phantom.head import draw_head
from fmct.data.phantom.scanner import SCANNERS, Overrides
from fmct.data.phantom.writer import Identity, series_header, stored_pixels, uid, write_dicom
from fmct.data.rejection import RejectCode

HARD_CASES = {
    "hard_cases/scout": RejectCode.LOCALIZER,
    "hard_cases/two_slices": RejectCode.TOO_FEW_SLICES,
    "hard_cases/two_phases": RejectCode.DUPLICATE_POSITION,
    "hard_cases/missing_slices": RejectCode.GAP,
    "hard_cases/base_only": RejectCode.SHORT_COVERAGE,
    "hard_cases/zoomed": RejectCode.SMALL_FIELD,
    "hard_cases/raw_values": RejectCode.IMPLAUSIBLE_HU,
}
"""What `fmct index` says of each. `two_phases` has two different images at each position; `missing_slices` lacks two in
its middle; `base_only` is the lowest 60 mm; `zoomed` shows 100 mm around an ear; `raw_values` lacks its rescaling."""

BASE_MM = 60.0
ZOOM_MM = 100.0
RAW_OFFSET = 1024


def write_hard_cases(cohort: Path, seed: int, overrides: Overrides) -> None:
    """Write the series of `HARD_CASES` below a cohort's folder; they have no row in the truth table."""
    rng = np.random.default_rng([seed, 2])
    head = draw_head(rng)
    scanner = SCANNERS["scanner_a"]
    scan = acquire(head, scanner, scanner.draw(rng, head, overrides), rng)
    again = acquire(head, scanner, scan.protocol, rng)
    everything = range(len(scan.hu))
    middle = len(scan.hu) // 2
    from_base = sorted(everything, key=lambda k: scan.protocol.table_z_mm[k])
    lowest = scan.protocol.table_z_mm[from_base[0]]
    chosen = {
        "hard_cases/two_slices": some_slices(scan, [0, 1]),
        "hard_cases/two_phases": replace(
            some_slices(scan, [*everything, *everything]), hu=np.concatenate([scan.hu, again.hu])
        ),
        "hard_cases/missing_slices": some_slices(scan, [k for k in everything if k not in {middle, middle + 1}]),
        "hard_cases/base_only": some_slices(
            scan, sorted(k for k in everything if scan.protocol.table_z_mm[k] < lowest + BASE_MM)
        ),
        "hard_cases/zoomed": zoomed(scan),
        "hard_cases/raw_values": replace(scan, hu=np.clip(scan.hu, -RAW_OFFSET, None) + np.int16(RAW_OFFSET)),
    }
    identity = Identity(patient_id="H0001", age_years=head.age_years, sex=head.sex, study="", series=2)
    for path, made in chosen.items():
        write_dicom(made, cohort / path, identity.model_copy(update={"study": f"{path} {seed}"}))
    write_scout(scan, cohort / "hard_cases/scout", identity.model_copy(update={"study": f"scout {seed}"}))


def zoomed(scan: Scan) -> Scan:
    """Return the part of a scan that a reconstruction of one temporal bone shows."""
    protocol = scan.protocol
    side = int(ZOOM_MM / protocol.pixel_mm)
    first = (protocol.matrix - side) // 2
    rows, columns = slice(first, first + side), slice(0, side)
    off_center = protocol.pixel_mm * ((protocol.matrix - side) // 2)
    center = (protocol.center_mm[0] - off_center, protocol.center_mm[1])
    narrow = protocol.model_copy(update={"matrix": side, "center_mm": center})
    return replace(scan, protocol=narrow, hu=np.ascontiguousarray(scan.hu[:, rows, columns]))


def some_slices(scan: Scan, slices: Sequence[int]) -> Scan:
    """Return the scan that has some of the slices, in this order."""
    protocol = scan.protocol.model_copy(
        update={
            "slice_mm": tuple(scan.protocol.slice_mm[k] for k in slices),
            "table_z_mm": tuple(scan.protocol.table_z_mm[k] for k in slices),
        }
    )
    return replace(scan, protocol=protocol, hu=scan.hu[list(slices)])


def write_scout(scan: Scan, folder: Path, identity: Identity) -> None:
    """Write a lateral view of the stack as a localizer of one image, rows from the vertex downward."""
    folder.mkdir(parents=True, exist_ok=True)
    header = series_header(scan, identity)
    instance = uid("instance", identity.series_uid, "0")
    projection = scan.hu.mean(axis=2, dtype=np.float32)[:: -1 if scan.scanner.upward else 1]
    image = replace(scan, hu=np.rint(projection)[None].astype(np.int16))
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = instance
    header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    header.SeriesDescription = "Scout"
    header.InstanceNumber = 1
    header.Rows, header.Columns = projection.shape
    header.ImageOrientationPatient = ["0", "1", "0", "0", "0", "-1"]
    top = scan.origins_mm[np.argmax(scan.origins_mm[:, 2])]
    header.ImagePositionPatient = [f"{p:.4f}" for p in (0.0, top[1], top[2])]
    header.PixelSpacing = [f"{scan.protocol.slice_mm[0]:g}", f"{scan.protocol.pixel_mm:.7g}"]
    header.PixelData = stored_pixels(image).tobytes()
    header.save_as(folder / "0001.dcm", enforce_file_format=True)
