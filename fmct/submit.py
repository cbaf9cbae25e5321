"""`fmct submit`: hand a run to SLURM, in a job that is requeued and goes on until the run is done."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fmct.console.command import exit_code
from fmct.console.errors import ExitCode, UsageError

EXAMPLE = "--slurm partition=gpu,gpus=8,cores=12,walltime=24:00:00"
EPILOG = f"""\
--slurm says what the job asks for: walltime, and partition, account, gpus (per node), cores (per process), memory.
There is a process for each GPU; trainer.devices, nodes and strategy follow from that, unless flags say otherwise.

Before its time is over, the run saves, and the job is requeued. Logs are in RUNS/slurm.

examples:
  fmct submit --config experiments/pretrain_mae_vitb.yaml {EXAMPLE}
  fmct submit --config experiments/pretrain_mae_vitb.yaml --nodes 4 {EXAMPLE} --optimizer.lr 1e-4
"""


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split the command line into submit's own options and the experiment's flags."""
    parser = argparse.ArgumentParser(
        prog="fmct submit",
        usage="fmct submit --config FILE [--config OVERLAY ...] --slurm KEY=VALUE,... [--section.key VALUE ...]",
        description="Hand a run to SLURM, which starts it again until it is done.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", action="append", type=Path, default=[], metavar="FILE", help="experiment file, then overlays"
    )
    parser.add_argument("--slurm", metavar="KEY=VALUE,...", help="what the job asks for")
    parser.add_argument("--nodes", type=int, default=1, help="machines (default: 1)")
    parser.add_argument("--dry-run", action="store_true", help="print the batch file and stop")
    parser.add_argument("--json", action="store_true", help="print the job's number and its files as JSON")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_known_args(list(arguments))


def run(arguments: Sequence[str]) -> ExitCode:
    """Check the experiment, write the batch file, and hand it over."""
    options, flags = parse(arguments)
    where = "the command line of `fmct submit`"
    if not options.config:
        raise UsageError("no experiment file", where, "add --config experiments/NAME.yaml")
    if not options.slurm:
        raise UsageError("--slurm is missing", where, f"say what the job asks for, as in {EXAMPLE}")
    from fmct.data.slurm import parse_keys
    from fmct.experiment.loading import load_experiment
    from fmct.experiment.slurm_jobs import Job, job_script, submit

    job = parse_keys(f"nodes={options.nodes},{options.slurm}", Job, EXAMPLE)
    processes = job.tasks if job.tasks > 1 else max(1, job.gpus) * job.nodes
    hardware = ["--trainer.nodes", str(job.nodes), "--trainer.devices", str(processes // job.nodes)]
    if processes % job.nodes:
        raise UsageError(f"{processes} tasks can't be divided among {job.nodes} nodes", "--slurm", "change tasks")
    if processes > 1 and load_experiment(options.config, flags).trainer.strategy == "auto":
        hardware += ["--trainer.strategy", "ddp"]
    flags = [*hardware, *flags]
    experiment = load_experiment(options.config, flags)
    files = experiment.trainer.runs / "slurm"
    configs = [word for path in options.config for word in ("--config", str(path))]
    job = job.model_copy(update={"tasks": processes})
    script = job_script(experiment.name, ["fit", *configs, *flags], job, files / f"{experiment.name}-%j.log")
    if options.dry_run:
        print(script, end="")
        return ExitCode.DONE
    files.mkdir(parents=True, exist_ok=True)
    path = files / f"{experiment.name}.sbatch"
    number = submit(script, path, example=EXAMPLE)
    log = files / f"{experiment.name}-{number}.log"
    if options.json:
        print(json.dumps({"job": number, "script": str(path), "log": str(log), "processes": processes}, indent=2))
    else:
        print(f"job {number}: {experiment.name}, {processes} processes on {job.nodes} nodes, {job.walltime} at a time")
        print(f"batch file {path}, log {log}")
    return ExitCode.DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; expected errors are three lines, without a traceback unless `--debug`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return exit_code(lambda: run(arguments), debug="--debug" in arguments)


if __name__ == "__main__":
    sys.exit(main())
