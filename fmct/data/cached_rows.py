"""Which rows of a manifest are meant: those of some splits, those whose volumes are in a cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fmct.console.errors import UsageError
from fmct.data.cache_folders import SETTINGS_FILE
from fmct.data.presets import IsotropicSettings
from fmct.data.volumes import VolumeCache


def rows_in(frame: pd.DataFrame, splits: Sequence[str], manifest: Path) -> pd.DataFrame:
    """Return the rows of some splits.

    Raises:
        UsageError: when there are none.
    """
    chosen = frame[frame["split"].isin(splits)]
    if chosen.empty:
        counts = ", ".join(f"{name or '(empty)'}: {n}" for name, n in frame["split"].value_counts().items())
        wanted = ", ".join(name or "(empty)" for name in splits)
        raise UsageError(
            f"no scan is in the split {wanted}; the manifest has {counts}",
            manifest,
            "assign splits with `fmct split`, or change data.train_splits / data.val_splits",
        )
    return chosen


def cached_rows(frame: pd.DataFrame, cache: VolumeCache, manifest: Path) -> pd.DataFrame:
    """Keep the rows whose volumes are in the cache.

    Rows that preprocessing rejected are left out: they are in the cache's rejects.csv with a reason.

    Raises:
        UsageError: when a scan is neither in the cache nor among its rejects, or nothing is left.
    """
    inside = is_among(frame["scan_id"], cache.index.index)
    rejected = is_among(frame["scan_id"], sorted(cache.rejected_ids()))
    missing = frame[~inside & ~rejected]
    usual = cache.settings == IsotropicSettings()
    fix = f"run `fmct preprocess {manifest} --cache {cache.folder.parent}`"
    fix += "" if usual else f", with flags for the settings in {cache.folder / SETTINGS_FILE}"
    if len(missing):
        raise UsageError(
            f"{len(missing)} of {len(frame)} scans are not in the cache, the first is {missing['scan_id'].iloc[0]}",
            cache.folder,
            fix,
        )
    if not inside.any():
        raise UsageError(f"all {len(frame)} scans were rejected by preprocessing", cache.folder / "rejects.csv", fix)
    return frame[inside]


def is_among(names: Any, known: Any) -> NDArray[np.bool_]:
    """Say for each name whether it is known: (N,). In Arrow, since pandas takes seconds over a hundred thousand."""
    text = pa.large_string()
    found = pc.is_in(pa.array(names, text), value_set=pa.array(known, text))
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)
