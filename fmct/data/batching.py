"""A manifest's scans divided into batches: made one by one as they are asked for, smaller towards the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fmct.data.cache_building import Batch, Row
from fmct.data.clusters import Workers
from fmct.data.shared_folders import batches_of_folder
from fmct.data.volumes import VolumeCache

LARGEST_BATCH = 64
LARGEST_BATCH_OF_ONE_FOLDER = 256
BATCHES_LEFT_PER_PROCESS = 4
COLUMNS = ["scan_id", "path", "format", "series_id", "n_slices", "skipped_rules"]
"""What of a manifest preprocessing needs to know."""


def batches_of(frame: pd.DataFrame, root: Path, cache: VolumeCache, workers: Workers) -> Iterator[Batch]:
    """Divide scans into batches: those in one folder stay together, and every process gets several batches.

    A folder that holds more scans than a batch (some data sets are one folder of a million files) is read here, once,
    by the workers, and each batch is told which files are whose.

    Args:
        frame: rows of the manifest.
        root: the folder that their paths are relative to.
        cache: where volumes are to go.
        workers: who will work on them.
    """
    if frame.empty:
        return
    rows = frame[[name for name in COLUMNS if name in frame]].sort_values("path", kind="stable", ignore_index=True)
    paths = rows["path"].to_numpy()
    first = np.flatnonzero(np.concatenate([[True], paths[1:] != paths[:-1]]))
    ends = np.append(first[1:], len(rows))
    shared = ends - first > LARGEST_BATCH_OF_ONE_FOLDER
    empty = Batch([], root, cache.folder, cache.settings)
    start = 0
    for begin, end, is_shared in zip(first.tolist(), ends.tolist(), shared.tolist(), strict=True):
        if is_shared and (rows["format"].iloc[begin:end] == "dicom").all():
            if start < begin:
                yield replace(empty, rows=records(rows, start, begin))
            yield from batches_of_folder(replace(empty, rows=records(rows, begin, end)), workers, LARGEST_BATCH)
            start = end
        elif end - start >= size_of_batch(len(rows) - start, workers.count()):
            yield replace(empty, rows=records(rows, start, end))
            start = end
    if start < len(rows):
        yield replace(empty, rows=records(rows, start, len(rows)))


def size_of_batch(left: int, processes: int) -> int:
    """Return how many scans the next batch is to have, so that at the end all processes finish at about one time.

    Args:
        left: how many scans are left.
        processes: how many work.
    """
    return max(1, min(LARGEST_BATCH, left // (BATCHES_LEFT_PER_PROCESS * max(processes, 1))))


def records(rows: pd.DataFrame, start: int, end: int) -> list[Row]:
    """Return some rows as dictionaries."""
    return list(rows.iloc[start:end].to_dict("records"))
