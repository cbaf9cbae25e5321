"""How a manifest's scans are divided: every one once, folders together, smaller batches towards the end."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fmct.data.batching import LARGEST_BATCH, batches_of, size_of_batch
from fmct.data.clusters import Workers
from fmct.data.presets import IsotropicSettings
from fmct.data.volumes import VolumeCache


class Many(Workers):
    """So many workers that nothing was started for."""

    def __init__(self, number: int) -> None:
        super().__init__(None, "a test's workers")
        self.number = number

    def count(self) -> int:
        return self.number


def rows(paths: list[str], kind: str = "dicom") -> pd.DataFrame:
    ids = [f"s{number}" for number in range(len(paths))]
    return pd.DataFrame({"scan_id": ids, "path": paths, "format": kind, "n_slices": 30, "age": 40.0})


@pytest.fixture
def cache(tmp_path: Path) -> VolumeCache:
    return VolumeCache(tmp_path, IsotropicSettings())


def test_every_scan_is_in_one_batch_and_folders_stay_together(cache: VolumeCache) -> None:
    rng = np.random.default_rng(0)
    frame = rows([f"f{number}" for number in rng.integers(0, 700, 3000)])
    batches = list(batches_of(frame, cache.folder, cache, Many(4)))
    assert sorted(row["scan_id"] for batch in batches for row in batch.rows) == sorted(frame["scan_id"])
    folders = [{row["path"] for row in batch.rows} for batch in batches]
    assert all(not one & other for one, other in pairwise(folders))
    assert len(set().union(*folders)) == sum(map(len, folders))
    sizes = [len(batch.rows) for batch in batches]
    assert LARGEST_BATCH <= max(sizes) < LARGEST_BATCH + 20
    assert max(sizes[-4:]) < 20
    assert set(batches[0].rows[0]) == {"scan_id", "path", "format", "n_slices"}


def test_batches_are_made_as_they_are_asked_for(cache: VolumeCache) -> None:
    workers = Many(1)
    coming = batches_of(rows([f"n{number}.nii.gz" for number in range(4000)], "nifti"), cache.folder, cache, workers)
    assert [len(batch.rows) for batch in islice(coming, 3)] == [64] * 3
    workers.number = 50  # more workers have come meanwhile
    assert len(next(coming).rows) == (4000 - 3 * 64) // (4 * 50)


def test_the_size_of_a_batch() -> None:
    assert size_of_batch(361_663, 64) == 64
    assert size_of_batch(2048, 64) == 8
    assert size_of_batch(3, 64) == 1
    assert size_of_batch(10, 0) == 2
    assert list(batches_of(rows([]), Path(), VolumeCache(Path(), IsotropicSettings()), Many(1))) == []
