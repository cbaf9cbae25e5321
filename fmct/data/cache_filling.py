"""From rows of a manifest to what became of each scan, wherever the work runs."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pandas as pd

from fmct.data.batching import batches_of
from fmct.data.clusters import Where
from fmct.data.guarding import Guarded
from fmct.data.processes import run_jobs
from fmct.data.scan_outcome import Outcome
from fmct.data.volumes import VolumeCache
from fmct.data.worker_fitness import check_scans, check_workers

SCANS_TO_PROBE = 100


def fill(todo: pd.DataFrame, root: Path, cache: VolumeCache, where: Where, limit_s: float) -> Generator[Outcome]:
    """Preprocess scans into a cache, and yield what became of each; entering that is left to the caller.

    Args:
        todo: rows of the manifest.
        root: the folder that their paths are relative to.
        cache: where volumes are to go.
        where: where the work is to run; in processes other than this one, a scan that crashes or hangs is rejected.
        limit_s: how long a scan may take there.

    Raises:
        UsageError: when scans or cache aren't to be seen from where the work is to run, or no worker can do it.
        FmctError: when the scheduler or all workers are lost on the way.
        OSError: when the cache can't be written.
    """
    root, cache = root.resolve(), VolumeCache(cache.folder.resolve(), cache.settings)
    probes = todo.head(SCANS_TO_PROBE).to_dict("records")
    with where.connect() as workers:
        if where.elsewhere:
            workers.wait_for_first()
            check_workers(workers, root, probes, cache.folder)
        else:
            check_scans(root, probes)
        batches = batches_of(todo, root, cache, workers)
        jobs = batches if where.in_this_process else (Guarded(batch, limit_s) for batch in batches)
        for part in run_jobs(jobs, workers):
            yield from part
