"""Whether hundreds of thousands of scans can be worked with: seconds, memory, and what all of it takes."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmct.benchmarks.fresh_process import in_fresh_process, peak_memory
from fmct.benchmarks.large_archive import DISTINCT, SIDE, large_cache, large_manifest
from fmct.data.datamodule import DataConfig
from fmct.data.dataset import Batch
from fmct.data.disjointness import check_disjoint, splits_of
from fmct.data.loader import ScanLoader
from fmct.data.manifest import read_manifest, write_manifest
from fmct.data.splits import assign_splits
from fmct.data.volumes import VolumeCache

SCANS, PATIENTS = 361_663, 150_000
BATCH_SIZE = 8
WARM_BATCHES = 1000
CORES = (1, 16, 256)
MB = 1e6
GOAL_GROWTH_MB = 10.0
"""What a worker writes to is copied into it once, and the table of interned names settles; a leak would go on."""


@dataclass(frozen=True)
class Figure:
    """Something measured, and what it should be at most.

    Attributes:
        what: was measured.
        value: the measurement.
        unit: of the value and the goal.
        goal: the most that it may be; None: no goal.
    """

    what: str
    value: float
    unit: str
    goal: float | None = None

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        return self.goal is None or self.value <= self.goal


def measure_scale(
    seconds_per_scan: float,
    bytes_per_scan: float,
    scans: int = SCANS,
    patients: int = PATIENTS,
    batches: int = 20_000,
    workers: int = 2,
) -> tuple[list[Figure], list[str]]:
    """Measure what grows with the number of scans, each thing in a process of its own.

    Args:
        seconds_per_scan: core-seconds to preprocess one, measured elsewhere.
        bytes_per_scan: size of a cached volume, measured elsewhere.
        scans: rows of the manifest and entries of the cache.
        patients: how many they are of.
        batches: for how many of them the loader's memory is watched, of `BATCH_SIZE` scans.
        workers: loader processes.

    Returns:
        The figures, and lines that say what they were measured on and what they come to.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        say(f"write a manifest and a cache of {scans:,} scans")
        manifest = large_manifest(scans, patients)
        paths = [folder / "manifest.csv", folder / "manifest.parquet"]
        for path in paths:
            write_manifest(manifest, path)
        large_cache(folder / "cache", manifest["scan_id"])
        del manifest
        figures = []
        for path in paths:
            say(f"read and check {path.name}")
            seconds, peak = in_fresh_process(read_and_check, path)
            figures.append(Figure(f"read and check the manifest, {path.suffix}, and its splits", seconds, "s", 15))
            figures.append(Figure(f"  peak memory, {path.suffix}", peak / MB, "MB", 1500))
        say("assign splits, and open the cache")
        figures.append(Figure("assign splits by patient", in_fresh_process(assign, paths[1])[0], "s", 15))
        figures.append(Figure("open the cache's index", in_fresh_process(open_cache, folder / "cache")[0], "s", 5))
        say(f"feed {batches:,} batches")
        figures += in_fresh_process(feed, paths[1], folder / "cache", batches, workers)
    lines = [
        f"{scans:,} scans of {patients:,} patients; names are random, and {DISTINCT:,} volumes of {SIDE}³ voxels stand "
        "for all",
        *extrapolate(scans, seconds_per_scan, bytes_per_scan),
    ]
    return figures, lines


def say(what: str) -> None:
    """Say on stderr what is done: all of it takes minutes."""
    print(f"{what} ...", file=sys.stderr, flush=True)


def extrapolate(scans: int, seconds_per_scan: float, bytes_per_scan: float) -> list[str]:
    """Say what an archive takes in hours and in terabytes, if more cores bring as much more."""
    hours = ", ".join(f"{scans * seconds_per_scan / cores / 3600:,.1f} h on {cores}" for cores in CORES)
    return [
        f"preprocessing, {seconds_per_scan:.3f} core-seconds per scan: {hours} core(s)",
        f"cache, {bytes_per_scan / MB:.2f} MB per scan: {scans * bytes_per_scan / 1e12:.2f} TB",
    ]


def read_and_check(path: Path) -> tuple[float, int]:
    """Read a manifest, which checks it, and prove its splits disjoint; return seconds and peak memory in bytes."""
    start = time.perf_counter()
    frames, _ = splits_of([read_manifest(path)])
    assert check_disjoint(frames).disjoint
    return time.perf_counter() - start, peak_memory()


def assign(path: Path) -> tuple[float, int]:
    """Assign all patients of a manifest to splits."""
    frame = read_manifest(path).assign(split="")
    start = time.perf_counter()
    assign_splits(frame, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=0)
    return time.perf_counter() - start, peak_memory()


def open_cache(path: Path) -> tuple[float, int]:
    """Open a cache and look at its index."""
    start = time.perf_counter()
    assert len(VolumeCache.open(path)) > 0
    return time.perf_counter() - start, peak_memory()


def feed(manifest: Path, cache: Path, batches: int, workers: int) -> list[Figure]:
    """Feed batches as training does; return the time to the first one and how the workers' memory grows."""
    start = time.perf_counter()
    config = DataConfig(
        manifest=manifest, cache=cache, batch_size=BATCH_SIZE, workers=workers, train_splits=("pretrain", "train")
    )
    loader = config.build((), seed=0).train_dataloader()
    built = time.perf_counter()
    epochs = epochs_of(loader)
    next(epochs)
    first = time.perf_counter()
    processes = [worker.pid for worker in loader._iterator._workers] if workers else []
    warm = min(WARM_BATCHES, batches // 2)
    own: list[list[int]] = []
    for number in range(1, batches):
        next(epochs)
        if number in {warm, batches - 1}:
            own.append([private_memory(process) for process in processes])
    seconds = time.perf_counter() - first
    figures = [
        Figure("from nothing to a loader", built - start, "s"),
        Figure("first batch of an epoch", first - built, "s", 10),
        Figure(f"scans fed per second, {workers} workers", (batches - 1) * BATCH_SIZE / seconds, "scans/s"),
    ]
    if processes:
        growth = max(after - before for before, after in zip(*own, strict=True)) / MB
        what = f"growth of a worker's own memory from batch {warm:,} to batch {batches:,}"
        figures.append(Figure(what, growth, "MB", GOAL_GROWTH_MB))
        figures.append(Figure("  a worker's own memory at the end", max(own[-1]) / MB, "MB"))
    return figures


def epochs_of(loader: ScanLoader) -> Iterator[Batch]:
    """Yield the batches of one epoch after the other."""
    epoch = 0
    while True:
        loader.sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def private_memory(process: int) -> int:
    """Return the memory that a process shares with no other, in bytes; 0 where the system doesn't say (not Linux)."""
    file = Path(f"/proc/{process}/smaps_rollup")
    if not file.exists():
        return 0
    lines = file.read_text(encoding="ascii").splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def table(figures: Sequence[Figure]) -> str:
    """Lay the figures out as text, with their goals."""
    lines = []
    for figure in figures:
        goal = "" if figure.goal is None else f"  (goal {figure.goal:g}{'' if figure.met else ', MISSED'})"
        lines.append(f"{figure.what:<62}{figure.value:>10,.2f} {figure.unit}{goal}")
    return "\n".join(lines)
