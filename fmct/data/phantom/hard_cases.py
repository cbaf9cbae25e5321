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

HARD_CASES = {
    "hard_cases/scout": "a localizer: one projection, ImageType LOCALIZER",
    "hard_cases/two_slices": "a series of two slices",
    "hard_cases/two_phases": "two scans in one series: two different images at each position",
}


def write_hard_cases(cohort: Path, seed: int, overrides: Overrides) -> None:
    """Write the series of `HARD_CASES` below a cohort's folder; they have no row in the truth table."""
    rng = np.random.default_rng([seed, 2])
    head = draw_head(rng)
    scanner = SCANNERS["scanner_a"]
    scan = acquire(head, scanner, scanner.draw(rng, head, overrides), rng)
    again = acquire(head, scanner, scan.protocol, rng)
    everything = range(len(scan.hu))
    chosen = {
        "hard_cases/two_slices": some_slices(scan, [0, 1]),
        "hard_cases/two_phases": replace(
            some_slices(scan, [*everything, *everything]), hu=np.concatenate([scan.hu, again.hu])
        ),
    }
    study = f"hard cases {seed}"
    identity = Identity(patient_id="H0001", age_years=head.age_years, sex=head.sex, study=study, series=1)
    for series, (path, made) in enumerate(chosen.items(), 3):
        write_dicom(made, cohort / path, identity.model_copy(update={"series": series}))
    write_scout(scan, cohort / "hard_cases/scout", identity)


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
