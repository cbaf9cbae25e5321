"""Starting a Dask cluster on this machine, connecting to one, and keeping it quiet. Dask is imported where it is used.

The dashboard stays off, and no limits on memory are set: Dask could only see the processes that hand work on, not
their children that do it (see `guarding`), and it would stop all scans of a worker where the kernel ends the one that
is too large.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fmct.console.errors import UsageError, require_file
from fmct.data.worker_environment import WORKER_ENVIRONMENT

SECONDS_TO_CONNECT = 20.0
SECONDS_TO_CLOSE = 10.0
HOW_TO_START = "start one with `dask scheduler`, and workers with `dask worker ADDRESS`; or leave --scheduler out"


@contextmanager
def local_cluster(workers: int) -> Iterator[Any]:
    """Start processes on this machine that each do one thing at a time.

    Args:
        workers: how many.
    """
    import dask
    from distributed import LocalCluster

    with (
        tempfile.TemporaryDirectory(prefix="fmct-workers-", ignore_cleanup_errors=True) as scratch,
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": 0,  # it is tried again by us, and in pieces
                "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
            }
        ),
    ):
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",  # can't be left out; so it is in nobody's way and only seen from here
            worker_dashboard_address="127.0.0.1:0",
            memory_limit=0,
            preload="fmct.data.worker_signals",
            local_directory=scratch,
            silence_logs=logging.CRITICAL,
        )
        try:
            yield cluster
        finally:
            for nanny in cluster.workers.values():  # they have nothing to save, and asked to end they take seconds
                nanny.auto_restart = False
                if nanny.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(nanny.pid, signal.SIGKILL)
            with suppress(TimeoutError):
                cluster.close(SECONDS_TO_CLOSE)


@contextmanager
def client_of(cluster: Any) -> Iterator[Any]:
    """Connect to a scheduler.

    Args:
        cluster: what was started here, or an address.

    Raises:
        UsageError: when it doesn't answer.
    """
    from distributed import Client

    try:
        client = Client(cluster, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise UsageError(f"no Dask scheduler answers ({type(error).__name__})", str(cluster), HOW_TO_START) from error
    try:
        yield client
    finally:
        with suppress(TimeoutError):
            client.close(SECONDS_TO_CLOSE)


def address_of(scheduler: str) -> str:
    """Return the address of a scheduler that was named by it or by the file it writes.

    Raises:
        UsageError: when there is no such file, or it names none.
    """
    if "://" in scheduler:
        return scheduler
    path = require_file(Path(scheduler), "the scheduler file", "pass tcp://HOST:8786, or the file of the scheduler")
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError("the file isn't one that a Dask scheduler writes", path, HOW_TO_START) from error


@contextmanager
def quiet_dask() -> Iterator[None]:
    """Keep Dask's own log out of the output: what matters is said by us."""
    import distributed

    log = logging.getLogger(distributed.__name__)
    before = [(handler, handler.level) for handler in log.handlers]
    for handler, _ in before:
        handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for handler, level in before:
            handler.setLevel(level)
