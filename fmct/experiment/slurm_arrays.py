"""A sweep as SLURM arrays: one element a run, one array a stage, each stage after the one before."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from fmct.console.errors import UsageError
from fmct.console.files import write_text_atomically
from fmct.data.slurm import FLAG
from fmct.experiment.combination import Combination
from fmct.experiment.config import Config

EXAMPLE = "--slurm partition=gpu,cores=8,gpus=1,walltime=12:00:00,at_a_time=4"


class ArrayJobs(Config):
    """What every element of an array asks SLURM for."""

    walltime: str = Field(pattern=r"^(\d+-)?\d+(:\d\d){0,2}$", description="of each run, HH:MM:SS or D-HH:MM:SS")
    cores: int = Field(1, gt=0, description="of each task")
    tasks: int = Field(1, gt=0, description="processes of each run, started by srun: trainer.devices x trainer.nodes")
    nodes: int = Field(1, gt=0, description="machines of each run")
    gpus: int = Field(0, ge=0, description="per node")
    memory: str | None = Field(
        None, pattern=r"(?i)^\d+(\.\d+)?\s*[KMGT]I?B?$", description="per node, as 64GB; default: SLURM's own"
    )
    partition: str | None = Field(None, description="default: SLURM's own")
    account: str | None = Field(None, description="who pays")
    at_a_time: int | None = Field(None, gt=0, description="runs at a time; default: as many as there is room for")

    def lines(self) -> list[str]:
        """Return what sbatch is asked for."""
        asked = {
            "time": self.walltime,
            "nodes": self.nodes,
            "ntasks": self.tasks,
            "cpus-per-task": self.cores,
            "gpus-per-node": self.gpus or None,
            "mem": self.memory,
            "partition": self.partition,
            "account": self.account,
        }
        return [f"#SBATCH --{name}={value}" for name, value in asked.items() if value is not None]


def array_script(name: str, combinations: Sequence[Combination], jobs: ArrayJobs, logs: Path) -> str:
    """Write the batch file of one stage: every element runs the ordinary commands of one combination.

    An element that SLURM requeues goes on from its last checkpoint, and one that is done already ends at once, as
    `fmct fit` does by itself.
    """
    limit = f"%{jobs.at_a_time}" if jobs.at_a_time else ""
    launcher = "srun " if jobs.tasks > 1 else ""
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
            "#SBATCH --requeue",
            "#SBATCH --open-mode=append",
            f"#SBATCH --output={logs.resolve() / f'{name}-%A_%a.log'}",
            *jobs.lines(),
            *helpers(launcher),
            'case "$SLURM_ARRAY_TASK_ID" in',
            *cases,
            "*) echo no such run; exit 2 ;;",
            "esac",
            "",
        ]
    )


def helpers(launcher: str) -> list[str]:
    """Return the functions that batch files use; exit code 3, some scans left out, is no failure."""
    python = f"{shlex.quote(sys.executable)} -m fmct.cli"
    accepted = '|| { status=$?; [ "$status" -eq 3 ] || return "$status"; }'
    return [
        f"cd {shlex.quote(str(Path.cwd()))} || exit 1",
        f'train() {{ {launcher}{python} "$@" {accepted}; }}',
        f'run() {{ {python} "$@" {accepted}; }}',
    ]


def collecting_script(name: str, command: Sequence[str], jobs: ArrayJobs, logs: Path) -> str:
    """Write the batch file of the job that gathers the results, however the runs ended."""
    asked = ArrayJobs(walltime="01:00:00", partition=jobs.partition, account=jobs.account, memory=jobs.memory)
    return "\n".join(
        [
            "#!/bin/bash",
            f"#SBATCH --job-name={name}",
            f"#SBATCH --output={logs.resolve() / f'{name}-%j.log'}",
            *asked.lines(),
            *helpers(""),
            f"run {shlex.join(command)}",
            "",
        ]
    )


def submit(script: str, path: Path, after: str | None = None) -> str:
    """Write a batch file and hand it to SLURM.

    Args:
        script: its text.
        path: where it is kept.
        after: job that has to end first, however it ends: a run that failed mustn't keep others from running.

    Returns:
        The job's number.

    Raises:
        UsageError: when there is no `sbatch`, or SLURM refuses.
    """
    write_text_atomically(path, script)
    program = shutil.which("sbatch")
    if program is None:
        raise UsageError("there is no `sbatch` here", FLAG, "run this where SLURM's commands are: on a login node")
    command = [program, "--parsable", *([f"--dependency=afterany:{after}"] if after else []), str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if said.returncode:
        reason = said.stderr.strip() or said.stdout.strip()
        raise UsageError(f"SLURM takes no job ({reason})", path, f"change {FLAG}, as in {EXAMPLE}")
    return said.stdout.strip().split(";")[0]
