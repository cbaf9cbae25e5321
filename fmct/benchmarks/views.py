"""How fast views are made, against the published chain as MONAI runs it, and how much of them shows a head.

On one thread, in a process of its own with `MALLOC` in its environment; all ways in turns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmct.benchmarks.caching import load_windows, write_own
from fmct.benchmarks.preprocessing import in_fresh_process, tuned_malloc
from fmct.benchmarks.table import Table
from fmct.benchmarks.timing import time_in_turns
from fmct.data.nifti import load_nifti
from fmct.data.phantom.cohort import CohortConfig, cases, make
from fmct.data.phantom.scanner import NO_OVERRIDES, Overrides
from fmct.data.presets import FmhctSettings, IsotropicSettings
from fmct.data.volume_file import Volume, read_volume
from fmct.data.volume_making import make_volume
from fmct.experiment.optim import OptimizerConfig
from fmct.tasks.base import Setting, Task
from fmct.views.crops import CropConfig
from fmct.views.foreground import FOREGROUND_HU
from fmct.views.intensity import IntensityConfig
from fmct.views.network_input import InputConfig
from fmct.views.windows import BONE

SPACING_MM = 1.5
NOT_HEAD = (FOREGROUND_HU - BONE.level_hu) / BONE.width_hu + 0.5
"""What is at most this in the bone window is no head."""
CHANGES = (
    IntensityConfig(shift=0.2, blur_voxels=0.7, probability=0.5),
    IntensityConfig(shift=0.2, gamma=0.8, probability=0.2),
    IntensityConfig(shift=0.2, probability=0.5),
)
"""Of the first and the second global view, and of local ones: the published ones, none rarer than there but the shift
of the second, which takes no time here."""


@dataclass(frozen=True)
class Recipe:
    """Views of one scan: how many, how large, and how they are cut."""

    name: str
    locals: int = 2
    local_voxels: int = 48
    turned: float = 0.0
    voxels: int = 96

    @property
    def views(self) -> Sequence[tuple[CropConfig, IntensityConfig, int]]:
        """Crop, changes of intensity and side in voxels of each view, the two global ones first."""
        large = CropConfig(side_mm=(110, 200), rotation_probability=self.turned, flip_probability=0.2)
        small = CropConfig(side_mm=(55, 110), rotation_probability=self.turned, flip_probability=0.2)
        first, second, others = CHANGES
        globals_ = ((large, first, self.voxels), (large, second, self.voxels))
        return (*globals_, *[(small, others, self.local_voxels)] * self.locals)


RECIPES = (
    Recipe("fmct, the same work: all at 96^3", local_voxels=96),
    Recipe("fmct, locals at 48^3"),
    Recipe("fmct, locals at 48^3, one in four turned", turned=0.25),
    Recipe("fmct, locals at 48^3, all turned by 10 deg", turned=1.0),
    Recipe("fmct, 2 at 96^3 and 8 at 48^3", locals=8),
)
PUBLISHED = "published chain (MONAI): 4 at 96^3"


@dataclass
class Heads:
    """Synthetic heads as both systems keep them, in memory and as files."""

    published: list[Tensor] = field(default_factory=list)
    ours: list[Volume] = field(default_factory=list)
    published_files: list[Path] = field(default_factory=list)
    our_files: list[Path] = field(default_factory=list)


def measure_views(scans: int, turns: int) -> list[Table]:
    """Time views of 2 global and 2 local crops per scan, made from memory and with reading.

    Args:
        scans: how many synthetic heads.
        turns: how often each way is timed.
    """
    with tuned_malloc():
        tables: list[Table] = in_fresh_process(partial(measured, scans, turns))
    return tables


def measured(scans: int, turns: int) -> list[Table]:
    """Measure in this process."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        heads = make_heads(scans, Path(folder))
        in_memory = ways_in_memory(heads)
        for way in in_memory.values():
            way()
        from_files = ways_from_files(heads)
        return [
            Table(f"views of {scans} heads, one thread", "scans", time_in_turns(in_memory, turns), shares(heads)),
            Table(f"views of {scans} heads with reading them, one thread", "scans", time_in_turns(from_files, turns)),
        ]


def make_heads(scans: int, folder: Path, overrides: Overrides = NO_OVERRIDES) -> Heads:
    """Make synthetic heads, preprocessed both ways: 3 windows of 96³, and HU of 144³."""
    heads = Heads()
    for number, case in enumerate(cases(CohortConfig(scans=scans, format="nifti", overrides=overrides))):
        make(case, folder)
        stack = load_nifti(folder / case.path)
        heads.published.append(torch.from_numpy(make_volume(stack, FmhctSettings()).voxels))
        heads.ours.append(make_volume(stack, IsotropicSettings(spacing_mm=SPACING_MM)))
        heads.published_files.append(folder / f"{number}.pt")
        heads.our_files.append(folder / f"{number}.b2nd")
        torch.save(heads.published[-1], heads.published_files[-1])
        write_own(heads.ours[-1], heads.our_files[-1])
    return heads


def ways_in_memory(heads: Heads) -> Mapping[str, Callable[[], int]]:
    """Return the ways to make views, the published one first."""
    from fmct.benchmarks.published_views import published_views

    def published() -> int:
        for volume in heads.published:
            published_views(volume)
        return len(heads.published)

    batch = stacked([volume.voxels for volume in heads.ours])
    return {PUBLISHED: published} | {recipe.name: partial(make_views, recipe, batch) for recipe in RECIPES}


def ways_from_files(heads: Heads) -> Mapping[str, Callable[[], int]]:
    """Return the ways to come from a file to views, and what is left to a loader where a GPU makes them."""
    from fmct.benchmarks.published_views import published_views

    def published() -> int:
        for path in heads.published_files:
            published_views(load_windows(path))
        return len(heads.published_files)

    def load() -> int:
        stacked([read_volume(path) for path in heads.our_files])
        return len(heads.our_files)

    def load_and_view() -> int:
        return make_views(RECIPES[1], stacked([read_volume(path) for path in heads.our_files]))

    return {PUBLISHED: published, RECIPES[1].name: load_and_view, "fmct, loader alone (views on a GPU)": load}


def stacked(volumes: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    """Put volumes into a batch: (B, 1, Z, Y, X) int16."""
    return torch.from_numpy(np.stack(volumes)).unsqueeze(1)


def make_views(recipe: Recipe, volumes: Tensor) -> int:
    """Make all views of a batch as a task does; return the number of scans."""
    every_view(recipe, volumes)
    return len(volumes)


def every_view(recipe: Recipe, volumes: Tensor, *, changed: bool = True) -> list[Tensor]:
    """Make all views of a batch, the global ones first, with intensities changed or not: (B, 3, V, V, V) each."""
    task = Task(Setting(InputConfig(voxels=recipe.voxels), OptimizerConfig(lr=1.0), 0, {}, SPACING_MM))
    batch = {"hu": volumes}
    generators = [np.random.default_rng([0, row]) for row in range(len(volumes))]
    return [
        task.random_view(batch, generators, crops, changes if changed else IntensityConfig(), side)
        for crops, changes, side in recipe.views
    ]


def shares(heads: Heads, draws: int = 4) -> list[str]:
    """Return lines that say what share of global and of local views shows no head, and lies outside the volume."""
    from fmct.benchmarks.published_views import published_crops

    air, padding = [], []
    for _ in range(draws):
        for volume in heads.published:
            air.append([share(view[2] <= NOT_HEAD) for view in published_crops(volume)])
            padding.append([share(view[0] < 0.5) for view in published_crops(torch.ones_like(volume))])
    volumes = stacked([volume.voxels for volume in heads.ours] * draws)
    ours = [share(view[:, 2] <= NOT_HEAD) for view in every_view(RECIPES[1], volumes, changed=False)]
    return [
        line("published, outside the volume", np.mean(padding, 0)),
        line("published, no head (outside, or at most -700 HU)", np.mean(air, 0)),
        line("fmct, no head", ours),
    ]


def share(voxels: Tensor) -> float:
    """Return the share of voxels that are true."""
    return float(voxels.float().mean())


def line(name: str, of_views: Sequence[float]) -> str:
    """Say a share of two global and two local views."""
    return f"{name}: {np.mean(of_views[:2]):.0%} of global views, {np.mean(of_views[2:]):.0%} of local ones"
