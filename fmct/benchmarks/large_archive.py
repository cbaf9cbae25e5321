"""A manifest and a cache as large as a national archive's, of made-up names and tiny volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fmct.data.presets import IsotropicSettings
from fmct.data.volume_header import sealed
from fmct.data.volumes import Volume, VolumeCache

HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
SIDE = 8
DISTINCT = 1000
SHARES = {"pretrain": 0.8, "train": 0.1, "val": 0.05, "test": 0.05}


def names(count: int, length: int, generator: np.random.Generator) -> np.ndarray:
    """Return (count,) hexadecimal names, all different for all practical purposes."""
    letters = HEX[generator.integers(0, 16, (count, length))]
    return letters.view(f"S{length}").ravel().astype(f"U{length}")


def large_manifest(scans: int, patients: int, seed: int = 0) -> pd.DataFrame:
    """Make a manifest with every column filled: each patient has a scan, and the others are dealt out at random.

    Args:
        scans: number of rows.
        patients: number of patients, at most as many.
        seed: of everything.
    """
    generator = np.random.default_rng(seed)
    patient = generator.permutation(
        np.concatenate([np.arange(patients), generator.integers(0, patients, scans - patients)])
    )
    series, study = names(scans, 32, generator), names(scans, 32, generator)
    site = generator.integers(0, 12, scans)
    columns = {
        "scan_id": series,
        "path": pd.Series(site).astype("str").radd("site").to_numpy() + "/" + study.astype(object) + "/" + series,
        "format": "dicom",
        "patient_id": names(patients, 32, generator)[patient],
        "study_id": study,
        "series_id": series,
        "split": generator.choice(list(SHARES), patients, p=list(SHARES.values()))[patient],
        "site": pd.Series(site).astype("str").radd("site").to_numpy(),
        "n_slices": generator.integers(20, 200, scans),
        **{f"spacing_{axis}_mm": generator.uniform(0.4, 5.0, scans).round(4) for axis in "xyz"},
        "slice_gap_max_mm": generator.uniform(0.5, 5.0, scans).round(3),
        "gantry_tilt_deg": generator.uniform(-25, 25, scans).round(2),
        "manufacturer": generator.choice(["maker a", "maker b", "maker c"], scans),
        "model": generator.choice(["model 1", "model 2"], scans),
        "kernel": generator.choice(["soft", "bone"], scans),
        "kvp": generator.choice([100.0, 120.0, 140.0], scans),
        "contrast": generator.integers(0, 2, scans),
        "age": generator.integers(18, 95, scans),
        "sex": generator.choice(["F", "M"], scans),
    }
    labels = {name: pd.Series(generator.integers(-1, 2, scans), dtype="Int8") for name in ("ICH", "MidlineShift")}
    known = {f"label:{name}": values.where(values >= 0) for name, values in labels.items()}
    return pd.DataFrame(columns | known)


def large_cache(root: Path, scan_ids: pd.Series[str]) -> VolumeCache:
    """Make a cache with an entry and a file for every scan, of which `DISTINCT` differ in more than the scan's name.

    Args:
        root: the cache's root.
        scan_ids: the scans.
    """
    generator = np.random.default_rng(0)
    cache = VolumeCache.create(root, IsotropicSettings(spacing_mm=10.0, shape_voxels=SIDE))
    written = []
    for number, scan_id in enumerate(scan_ids):
        if number < DISTINCT:
            voxels = generator.integers(-1000, 1000, (SIDE, SIDE, SIDE)).astype(np.int16)
            row = cache.store(scan_id, Volume(voxels, np.diag([10.0, 10.0, 10.0, 1.0])))
            written.append((row, scan_id.encode(), cache.volume_path(scan_id).read_bytes()))
        row, name, content = written[number % DISTINCT]
        if number >= DISTINCT:
            target = cache.volume_path(scan_id)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(sealed(content.replace(name, scan_id.encode())))  # names are of one length
        cache.record(scan_id, row)
    cache.save()
    return cache
