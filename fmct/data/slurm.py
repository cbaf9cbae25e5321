"""Workers in SLURM jobs, by dask-jobqueue: one Dask worker a job, with a thread for each core that hands work on.

Jobs whose time is over are asked for again, as long as work gets done.
"""

from __future__ import annotations

import getpass
import importlib.util
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from fmct.console.errors import FmctError, UsageError, nearest
from fmct.data.worker_environment import WORKER_ENVIRONMENT
from fmct.experiment.config import Config

Asked = TypeVar("Asked", bound=Config)
SECONDS_BETWEEN_QUERIES = 20.0
ROUNDS_IN_VAIN = 3
SECONDS_TO_CLOSE = 10.0
FLAG = "--slurm"
EXAMPLE = "--slurm partition=cpu,cores=16,walltime=04:00:00,jobs=4"


class SlurmJobs(Config):
    """Jobs to ask SLURM for, all alike."""

    cores: int = Field(gt=0, description="of each job; so many scans are worked on at a time")
    walltime: str = Field(pattern=r"^(\d+-)?\d+(:\d\d){0,2}$", description="of each job, HH:MM:SS or D-HH:MM:SS")
    partition: str | None = Field(None, description="default: SLURM's own")
    memory: str | None = Field(
        None, pattern=r"(?i)^\d+(\.\d+)?\s*[KMGT]I?B?$", description="of each job, as 64GB; default 4 GB for each core"
    )
    jobs: int = Field(1, gt=0, description="how many to keep running")
    account: str | None = Field(None, description="who pays")
    interface: str | None = Field(None, description="network interface of scheduler and workers, as ib0")


def parse_slurm(text: str) -> SlurmJobs:
    """Read what `--slurm` says of workers: KEY=VALUE, separated by commas.

    Raises:
        UsageError: naming the key that is unknown, missing or wrong, and for an unknown one the nearest.
    """
    return parse_keys(text, SlurmJobs, EXAMPLE)


def parse_keys(text: str, model: type[Asked], example: str) -> Asked:
    """Read KEY=VALUE, separated by commas.

    Args:
        text: what `--slurm` says.
        model: the class that says which keys there are.
        example: a right one, for messages.

    Raises:
        UsageError: naming the key that is unknown, missing or wrong, and for an unknown one the nearest.
    """
    values: dict[str, str] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        key, equals, value = item.partition("=")
        if key not in model.model_fields:
            guess = nearest(key, model.model_fields)
            fix = f"did you mean {guess!r}?" if guess else f"known keys: {', '.join(model.model_fields)}"
            raise UsageError(f"unknown key {key!r}", FLAG, fix)
        if not equals or not value:
            raise UsageError(f"{key} has no value", FLAG, f"write KEY=VALUE, as in {example}")
        values[key] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        problem = "is missing" if first["type"] == "missing" else f"is {first['input']!r}: {first['msg']}"
        raise UsageError(f"{key} {problem}", FLAG, f"{key}: {model.model_fields[key].description}") from error


class SlurmQueue:
    """The jobs of a run, and those that replace them."""

    def __init__(self, jobs: SlurmJobs, cluster: Any, logs: Path) -> None:
        self.jobs = jobs
        self.cluster = cluster
        self.logs = logs
        self._asked = time.monotonic()
        self._done_before = 0
        self._in_vain = 0

    def submit(self) -> None:
        """Ask for as many jobs as are lacking.

        Raises:
            UsageError: when SLURM refuses.
        """
        from distributed.core import Status

        while len(self.cluster.worker_spec) < self.jobs.jobs:
            self.cluster.worker_spec.update(self.cluster.new_worker_spec())

        async def opened() -> None:
            await self.cluster

        try:
            self.cluster.sync(opened)
        except (RuntimeError, ValueError, OSError) as error:
            for job in self.cluster.workers.values():
                if job.job_id is None:  # it never was begun, and so would not be closed
                    job.status = Status.failed
            said = [line for line in str(error).splitlines() if line.strip()]
            raise UsageError(f"SLURM takes no job ({said[-1] if said else error})", FLAG, f"as in {EXAMPLE}") from error

    def keep_up(self, done: int) -> None:
        """Replace jobs that have ended.

        Args:
            done: how much work the run has seen done.

        Raises:
            FmctError: when they end and nothing gets done.
        """
        if time.monotonic() - self._asked < SECONDS_BETWEEN_QUERIES:
            return
        self._asked = time.monotonic()
        queued = jobs_in_queue()
        if queued is None:
            return  # SLURM doesn't answer just now
        known = {name: job.job_id for name, job in self.cluster.workers.items()}  # Dask forgets some by itself
        ended = [name for name in self.cluster.worker_spec if known.get(name) not in queued]
        if not ended:
            return
        self._in_vain = self._in_vain + 1 if done == self._done_before else 0
        if self._in_vain == ROUNDS_IN_VAIN:
            fix = "read there what the jobs said; is the walltime enough, and fmct installed where they run?"
            raise FmctError("SLURM's jobs end and nothing gets done", str(self.logs), fix)
        self._done_before = done
        for name in ended:
            self.cluster.worker_spec.pop(name, None)
        self.submit()


def jobs_in_queue() -> set[str] | None:
    """Return the ids of this user's jobs that wait or run; None when SLURM doesn't say."""
    command = ["squeue", "--noheader", "--format=%i", f"--user={getpass.getuser()}"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - ours
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(said.stdout.split()) if said.returncode == 0 else None


@contextmanager
def slurm_queue(jobs: SlurmJobs, logs: Path) -> Iterator[SlurmQueue]:
    """Start a scheduler here and ask SLURM for jobs that work for it; cancel them at the end.

    Args:
        jobs: what to ask for.
        logs: folder for what the jobs print.

    Raises:
        UsageError: when dask-jobqueue or SLURM's commands are missing, or SLURM refuses.
    """
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise UsageError("dask-jobqueue isn't installed", FLAG, "pip install 'fmct[slurm]'")
    if shutil.which("sbatch") is None:
        raise UsageError("there is no `sbatch` here", FLAG, "run this where SLURM's commands are: on a login node")
    from dask_jobqueue import SLURMCluster

    try:
        cluster = SLURMCluster(
            queue=jobs.partition,
            account=jobs.account,
            walltime=jobs.walltime,
            cores=jobs.cores,
            processes=1,
            memory=jobs.memory or f"{4 * jobs.cores}GB",
            interface=jobs.interface,
            job_name="fmct",
            job_script_prologue=[f"export {name}={value}" for name, value in WORKER_ENVIRONMENT.items()],
            worker_extra_args=["--memory-limit", "0", "--no-dashboard"],
            scheduler_options={"dashboard": False, "dashboard_address": None},
            log_directory=str(logs),
            python=sys.executable,
            silence_logs="CRITICAL",
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"no scheduler can be started here ({error})", FLAG, "is `interface` right?") from error
    try:
        queue = SlurmQueue(jobs, cluster, logs)
        queue.submit()
        yield queue
    finally:
        with suppress(TimeoutError):
            cluster.close(SECONDS_TO_CLOSE)
