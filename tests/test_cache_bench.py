"""What `fmct bench` says of the cache is what was read."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fmct.benchmarks import caching
from fmct.data.phantom.scanner import Overrides
from fmct.data.volume_file import Volume


def test_every_form_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(scans: int, folder: Path) -> dict[int, list[Volume]]:
        rng = np.random.default_rng(0)
        cubes = {side: rng.integers(-100, 200, (scans, side, side, side)).astype(np.int16) for side in (6, 8)}
        return {side: [Volume(cube, np.eye(4)) for cube in made] for side, made in cubes.items()}

    monkeypatch.setattr(caching, "heads", small)
    monkeypatch.setattr(caching, "PUBLISHED_SIDE", 6)
    timings, sizes = caching.measure_caching(2, 1)
    assert timings[0].name == "6^3 published form: torch.save of 3 x float16"
    assert len({timing.name for timing in timings}) == len(timings) == 2 * (4 + 3)
    assert all(timing.items == caching.READS for timing in timings)
    assert len(sizes) == 5
    npy = next(line for line in sizes if line.startswith("8^3 int16 .npy"))
    assert re.search(r"1\.15 KB a scan, 417 MB for 361,663 scans$", npy), npy  # 128 + 2 * 8^3 bytes
    for side, (volume, _) in small(2, tmp_path).items():
        for number, form in enumerate(caching.forms(side)):
            path = tmp_path / f"{side}_{number}{form.suffix}"
            form.write(volume, path)
            read = form.read(path)
            if isinstance(read, torch.Tensor):
                assert read.shape == (3, 6, 6, 6)
                assert read.dtype == torch.float16
                assert read[0].numpy() == pytest.approx(np.clip(volume.voxels / 80, 0, 1), abs=1e-3)
            else:
                assert np.array_equal(read, volume.voxels)


def test_heads_are_made_in_both_sizes(tmp_path: Path) -> None:
    made = caching.heads(1, tmp_path, Overrides(pixel_mm=4, slice_mm=6))
    assert {side: [volume.voxels.shape for volume in volumes] for side, volumes in made.items()} == {
        96: [(96, 96, 96)], 144: [(144, 144, 144)],
    }  # fmt: skip
    assert all((volume.voxels > 1000).mean() > 0.001 for volumes in made.values() for volume in volumes)
