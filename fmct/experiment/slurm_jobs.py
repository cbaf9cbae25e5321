"""Batch files for SLURM: what a job asks for, how it trains, and how it is handed over.

Shortly before its time is over, SLURM sends SIGUSR1 to what srun has started: `fmct fit` finishes its step, saves and
ends with code 75, and the batch file requeues its job, which goes on from there.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from pydantic import Field

from fmct.console.errors import ExitCode, UsageError
from fmct.console.files import write_text_atomically
from fmct.data.slurm import FLAG
from fmct.experiment.config import Config

SECONDS_TO_SAVE = 300
SECONDS_TO_FOLLOW = 120
REQUEUED = (
    "#SBATCH --requeue",
    "#SBATCH --open-mode=append",
    f"#SBATCH --signal=USR1@{SECONDS_TO_SAVE}",
)
"""Lines of a job that can be stopped at any time, by its walltime or for one that comes before it."""
SRUN = f"srun --kill-on-bad-exit=0 --wait={SECONDS_TO_FOLLOW}"
"""Processes that were asked to end do so one after the other; those that are left after a while, SLURM ends."""


class Job(Config):
    """What a job asks SLURM for."""

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


def helpers() -> list[str]:
    """Return the functions that batch files use; exit code 3, some scans left out, is no failure."""
    python = f"{shlex.quote(sys.executable)} -m fmct.cli"
    accepted = f'[ "$status" -eq {int(ExitCode.SOME_REJECTED)} ] || return "$status"'
    job = 'job="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"'
    requeued = f'[ "$status" -ne {int(ExitCode.PREEMPTED)} ] || requeue'
    return [
        f"cd {shlex.quote(str(Path.cwd()))} || exit 1",
        f'requeue() {{ {job}; scontrol requeue "${{job:-$SLURM_JOB_ID}}"; }}',
        f'train() {{ {SRUN} {python} "$@" || {{ status=$?; {requeued}; {accepted}; }}; }}',
        f'run() {{ {python} "$@" || {{ status=$?; {accepted}; }}; }}',
    ]


def job_script(name: str, command: list[str], job: Job, log: Path) -> str:
    """Write the batch file of one run.

    Args:
        name: of the job.
        command: `fit` and its flags.
        job: what it asks for.
        log: where what it prints is added to; %j is the job's number.
    """
    return "\n".join(
        [
            "#!/bin/bash",
            f"#SBATCH --job-name={name}",
            *REQUEUED,
            f"#SBATCH --output={log.resolve()}",
            *job.lines(),
            *helpers(),
            f"train {shlex.join(command)}",
            "",
        ]
    )


def submit(script: str, path: Path, after: str | None = None, example: str = "") -> str:
    """Write a batch file and hand it to SLURM.

    Args:
        script: its text.
        path: where it is kept.
        after: job that has to end first, however it ends: a run that failed mustn't keep others from running.
        example: a right `--slurm`, for messages.

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
        raise UsageError(f"SLURM takes no job ({reason})", path, f"change {FLAG}, as in {example}")
    return said.stdout.strip().split(";")[0]
