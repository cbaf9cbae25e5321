"""A sweep as SLURM arrays: one element a run, one array a stage, each stage after the one before."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from fmct.experiment.combination import Combination
from fmct.experiment.slurm_jobs import REQUEUED, Job, helpers

EXAMPLE = "--slurm partition=gpu,cores=8,gpus=1,walltime=12:00:00,at_a_time=4"


class ArrayJobs(Job):
    """What every element of an array asks SLURM for."""

    at_a_time: int | None = Field(None, gt=0, description="runs at a time; default: as many as there is room for")


def array_script(name: str, combinations: Sequence[Combination], jobs: ArrayJobs, logs: Path) -> str:
    """Write the batch file of one stage: every element runs the ordinary commands of one combination.

    An element that is stopped by the walltime is requeued and goes on from its last checkpoint; one that is done
    already ends at once, as `fmct fit` does by itself.
    """
    limit = f"%{jobs.at_a_time}" if jobs.at_a_time else ""
    cases = []
    for number, one in enumerate(combinations):
        fit, *evaluations = one.commands()
        steps = [f"train {shlex.join(fit)}", *(f"run {shlex.join(command)}" for command in evaluations)]
        cases.append(f"{number}) # {one.name}\n  " + " &&\n  ".join(steps) + "\n  ;;")
    return "\n".join(
        [
            "#!/bin/bash",
            f"#SBATCH --job-name={name}",
            f"#SBATCH --array=0-{len(combinations) - 1}{limit}",
            *REQUEUED,
            f"#SBATCH --output={logs.resolve() / f'{name}-%A_%a.log'}",
            *jobs.lines(),
            *helpers(),
            'case "$SLURM_ARRAY_TASK_ID" in',
            *cases,
            "*) echo no such run; exit 2 ;;",
            "esac",
            "",
        ]
    )


def collecting_script(name: str, command: Sequence[str], jobs: ArrayJobs, logs: Path) -> str:
    """Write the batch file of the job that gathers the results, however the runs ended."""
    asked = ArrayJobs(walltime="01:00:00", partition=jobs.partition, account=jobs.account, memory=jobs.memory)
    return "\n".join(
        [
            "#!/bin/bash",
            f"#SBATCH --job-name={name}",
            f"#SBATCH --output={logs.resolve() / f'{name}-%j.log'}",
            *asked.lines(),
            *helpers(),
            f"run {shlex.join(command)}",
            "",
        ]
    )
