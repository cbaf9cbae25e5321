"""`fmct sweep`: a grid of runs in one file, trained and evaluated in turn or as SLURM arrays."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main
from fmct.console.errors import ExitCode, UsageError
from fmct.console.files import atomic_path, write_text_atomically

if TYPE_CHECKING:
    from fmct.experiment.combination import Combination
    from fmct.experiment.sweep_file import SweepConfig

Stages = dict[str, list["Combination"]]


class Sweep(Command):
    """Run every combination of a grid, evaluate each, and gather the results in one table.

    The sweep file names experiment files, values of their keys and evaluations; stages build on one another. A run
    that fails doesn't stop the others. Run again, it does only what is left to do. Writes RUNS/NAME/sweep.parquet and
    sweep.json, and transfer.json where the file asks for it.

    Example: fmct sweep experiments/scaling_study.yaml --slurm partition=gpu,cores=8,gpus=1,walltime=12:00:00
    """

    sweep: CliPositionalArg[Path] = Field(description="sweep file")
    config: list[Path] = Field([], description="file laid over the experiments of every stage; give it repeatedly")
    runs: Path | None = Field(None, description="folder of the sweep's folder (default: the experiment's trainer.runs)")
    slurm: str | None = Field(
        None, description="submit SLURM arrays instead: walltime=HH:MM:SS and partition, cores, gpus, memory, ..."
    )
    collect: bool = Field(False, description="only gather the results of what is finished")
    bootstrap: int = Field(2000, ge=100, description="bootstrap replicates, in evaluations that aren't done yet")
    batch_size: int = Field(8, gt=0, description="scans at a time in evaluations; results don't depend on it")
    workers: int = Field(0, ge=0, description="loader processes of evaluations")
    jobs: int = Field(1, gt=0, description="runs at a time, sharing cores and GPUs")
    fresh: bool = Field(False, description="set an earlier sweep in the same folder aside, under a numbered name")
    dry_run: bool = Field(False, description="print the commands of the runs and stop")
    json_output: bool = Field(False, alias="json", description="print sweep.json")

    def run(self) -> ExitCode:
        """Run what is left to do, and gather."""
        from dataclasses import replace

        from fmct.console.occupied import occupied
        from fmct.experiment.grid import combinations_of
        from fmct.experiment.sweep_file import read_sweep

        self._check_flags()
        sweep = read_sweep(self.sweep)
        more = [
            "--batch-size",
            str(self.batch_size),
            "--workers",
            str(self.workers),
            "--bootstrap",
            str(self.bootstrap),
        ]
        stages = {
            stage: [replace(one, more=more) for one in combinations]
            for stage, combinations in combinations_of(sweep, self.sweep, self.config, self.runs).items()
        }
        folder = folder_of(sweep, stages)
        with nullcontext() if self.dry_run else occupied(folder):
            return self._go(sweep, stages, folder)

    def _go(self, sweep: SweepConfig, stages: Stages, folder: Path) -> ExitCode:
        """Run and gather, alone in the sweep's folder."""
        from fmct.experiment.combination import check_unchanged
        from fmct.experiment.runs import set_aside
        from fmct.experiment.separation import check_apart
        from fmct.experiment.turns import do_all, print_commands

        if self.fresh and folder.exists() and not self.dry_run:
            print(f"the earlier sweep is now in {set_aside(folder)}", file=sys.stderr)
        everything = [one for combinations in stages.values() for one in combinations]
        check_unchanged(everything)
        if self.dry_run:
            print_commands(everything, as_json=self.json_output)
            return ExitCode.DONE
        check_apart(everything)
        if self.slurm is not None:
            return self._submit(sweep, stages, folder)
        failures: dict[Path, str] = {}
        if not self.collect:
            for stage, combinations in stages.items():
                failures |= do_all(combinations, f"{sweep.name}, {stage or 'runs'}", jobs=self.jobs)
        return self._gather(sweep, stages, folder, failures)

    def _check_flags(self) -> None:
        where = "the command line of `fmct sweep`"
        if self.slurm is not None and self.collect:
            raise UsageError("--slurm and --collect exclude each other", where, "the last job collects by itself")
        if self.jobs > 1 and (self.slurm is not None or self.collect):
            other = "--collect" if self.slurm is None else "--slurm"
            raise UsageError(f"--jobs and {other} exclude each other", where, "leave one of them out")
        if self.collect and self.fresh:
            raise UsageError("--collect and --fresh exclude each other", where, "leave one of them out")

    def _submit(self, sweep: SweepConfig, stages: Stages, folder: Path) -> ExitCode:
        from fmct.data.slurm import parse_keys
        from fmct.experiment.slurm_arrays import EXAMPLE, ArrayJobs, array_script, collecting_script
        from fmct.experiment.slurm_jobs import submit

        jobs = parse_keys(str(self.slurm), ArrayJobs, EXAMPLE)
        files, logs = folder / "slurm", folder / "slurm" / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        submitted: list[dict[str, Any]] = []
        last: str | None = None
        for stage, combinations in stages.items():
            left = [one for one in combinations if not one.is_done]
            if left:
                name = "-".join(filter(None, (sweep.name, stage)))
                script = array_script(name, left, jobs, logs)
                last = submit(script, files / f"{name}.sbatch", last, EXAMPLE)
                submitted.append({"job": last, "stage": stage, "runs": [one.name for one in left]})
        again = ["sweep", str(self.sweep), "--collect", "--bootstrap", str(self.bootstrap)]
        again += [word for path in self.config for word in ("--config", str(path))]
        again += ["--runs", str(self.runs)] if self.runs else []
        name = f"{sweep.name}-results"
        last = submit(collecting_script(name, again, jobs, logs), files / f"{name}.sbatch", last, EXAMPLE)
        submitted.append({"job": last, "stage": "results", "runs": []})
        if self.json_output:
            print(json.dumps({"submitted": submitted, "logs": str(logs)}, indent=2))
        else:
            for one in submitted:
                runs = f"{len(one['runs'])} runs" if one["runs"] else f"gathers the results in {folder}"
                print(f"job {one['job']}: {one['stage'] or sweep.name}, {runs}")
            print(f"logs will be in {logs}")
        return ExitCode.DONE

    def _gather(self, sweep: SweepConfig, stages: Stages, folder: Path, failures: Mapping[Path, str]) -> ExitCode:
        from fmct.evaluation.confidence import Bootstrap
        from fmct.evaluation.sweep_results import table_of_results
        from fmct.evaluation.sweep_tables import results_text, transfer_text
        from fmct.evaluation.transfer import transfer_of

        table, missing = table_of_results(stages, failures)
        record = {
            "name": sweep.name,
            "grid": sweep.model_dump(mode="json")["grid"],
            "runs": sum(map(len, stages.values())),
            "failed": missing,
            "results": json.loads(table.to_json(orient="records")),
        }
        with atomic_path(folder / "sweep.parquet") as temporary:
            table.to_parquet(temporary, index=False)
        write_text_atomically(folder / "sweep.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        written, transfer = [folder / "sweep.json"], None
        if sweep.transfer is not None:
            last = list(stages.values())[-1]
            transfer = transfer_of(last, sweep.transfer, Bootstrap.of(self.bootstrap, 0, 0.95))
            write_text_atomically(folder / "transfer.json", transfer.model_dump_json(indent=2) + "\n")
            written.append(folder / "transfer.json")
        if self.json_output:
            print(json.dumps(record, indent=2, ensure_ascii=False))
        else:
            text = transfer_text(transfer) if transfer is not None else results_text(table)
            print(f"{text}\n" if text else "", end="\n" if text else "")
            for one in missing:
                print(f"no result: {one['folder']}: {one['reason']}")
            print(f"{record['runs'] - len(missing)} of {record['runs']} runs; wrote {' and '.join(map(str, written))}")
        return ExitCode.FAILED if missing else ExitCode.DONE


def folder_of(sweep: SweepConfig, stages: Mapping[str, Sequence[Combination]]) -> Path:
    """Return the sweep's folder, which holds its runs or the folders of its stages."""
    folder = next(one for combinations in stages.values() for one in combinations).folder.parent
    return folder.parent if sweep.stages else folder


COMMAND = Sweep

if __name__ == "__main__":
    sys.exit(main(COMMAND))
