"""`fmct fit`: pretrain or adapt a model as an experiment file says."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import yaml

from fmct.callbacks.averaging import weights_of
from fmct.callbacks.best_weights import BestWeights
from fmct.callbacks.first_losses import FirstLosses
from fmct.callbacks.preemption import Stopped, listening
from fmct.callbacks.retuning import Retuning
from fmct.callbacks.throughput import Throughput
from fmct.console.command import exit_code
from fmct.console.errors import ExitCode, UsageError
from fmct.console.leaving import leave
from fmct.data.quarantine import QUARANTINE
from fmct.experiment.loading import as_record, load_experiment
from fmct.experiment.preparing import Prepared, alone_in, is_first_process, prepare, say
from fmct.experiment.probing import fit_probe
from fmct.experiment.provenance import inputs_of, record_part
from fmct.experiment.replaying import replay
from fmct.experiment.runs import begin, finished_already, first_of, is_finished, run_folder, write_environment
from fmct.experiment.schema import Experiment
from fmct.experiment.speaking import first_to_speak
from fmct.experiment.training import train
from fmct.experiment.weights import export_run
from fmct.tasks.classifier import ClassifierConfig

EXAMPLES = """\
Every key of the experiment file is a flag; flags win over the environment (FMCT_OPTIMIZER__LR=1e-4), which wins over
the files, of which later ones win over earlier ones.

examples:
  fmct fit --config experiments/pretrain_mae_smoke.yaml
  fmct fit --config experiments/pretrain_mae_vitb.yaml --config experiments/overlays/smoke.yaml
  fmct fit --config experiments/pretrain_mae_vitb.yaml --optimizer.lr 1e-4 --trainer.devices 2 --trainer.strategy ddp
  fmct fit --replay runs/pretrain_mae_vitb --data.cache /elsewhere/cache

Ctrl-C, SIGTERM and SIGUSR1 end a run after the step that it is in, saved, with exit code 75: the same command goes on.
"""


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split the command line into fit's own options and the experiment's flags."""
    parser = argparse.ArgumentParser(
        prog="fmct fit",
        usage="fmct fit --config FILE [--config OVERLAY ...] [--section.key VALUE ...] [options]",
        description="Pretrain or adapt a model. A run with the same configuration goes on where it stopped.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", action="append", type=Path, default=[], metavar="FILE", help="experiment file, then overlays"
    )
    parser.add_argument("--fresh", action="store_true", help="start over; the old run's folder is renamed")
    parser.add_argument(
        "--continue-with-changes",
        action="store_true",
        help="go on although the configuration is another one; what changed is kept in history.json",
    )
    parser.add_argument(
        "--replay", type=Path, metavar="RUN", help="run RUN's first steps again, here, and compare their losses"
    )
    parser.add_argument("--print-config", action="store_true", help="print the whole configuration and stop")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options, flags = parser.parse_known_args(list(arguments))
    return options, flags


def check_options(options: argparse.Namespace) -> None:
    """Check that options don't contradict one another.

    Raises:
        UsageError: naming those that do.
    """
    where = "the command line of `fmct fit`"
    if options.fresh and options.continue_with_changes:
        raise UsageError("--fresh and --continue-with-changes exclude each other", where, "leave one of them out")
    for name in ("config", "fresh", "continue_with_changes", "print_config"):
        if options.replay and getattr(options, name):
            what = f"--replay and --{name.replace('_', '-')} exclude each other"
            raise UsageError(what, where, "the run says itself what is replayed; flags may name other places")


def fit(experiment: Experiment, *, fresh: bool = False, with_changes: bool = False) -> Path:
    """Run an experiment to its end and write its weight package.

    Args:
        experiment: what to run.
        fresh: start over, even if the run could go on.
        with_changes: go on although the configuration is another one, if that is possible.

    Returns:
        The run's folder.

    Raises:
        UsageError: when manifest, cache, weights or an existing run don't fit the experiment, or another process is at
            work in its folder.
        Stopped: when it was asked to end by a signal; it is saved, and goes on when it is run again.
    """
    if isinstance(experiment.task, ClassifierConfig) and experiment.task.is_probe:
        return fit_probe(experiment, fresh=fresh)
    with listening() as asked:
        run = prepare(experiment, asked, [FirstLosses(run_folder(experiment))])
        with alone_in(run_folder(experiment)):
            return fit_prepared(experiment, run, fresh=fresh, with_changes=with_changes)


def fit_prepared(experiment: Experiment, run: Prepared, *, fresh: bool, with_changes: bool) -> Path:
    """Run what is prepared, alone in its folder."""
    changed = run.task if with_changes else None
    start = begin(experiment, fresh=fresh, first_process=is_first_process(), changed=changed)
    if is_finished(start.folder):
        say(finished_already(start.folder))
        return start.folder
    if with_changes and start.checkpoint:  # on every process, also one that finds the new configuration written
        run.trainer.callbacks.append(Retuning())  # type: ignore[attr-defined]
        say(f"changed: {first_of(list(start.changes)) or 'nothing'}")
    inputs = inputs_of(experiment, run.data)
    if is_first_process():
        goes_on_from = start.checkpoint.resolve().name if start.checkpoint else None
        record_part(start.folder, **inputs, goes_on_from=goes_on_from, changes=list(start.changes))
    say(
        f"{experiment.name}: {experiment.task.kind} on {len(run.data.train)} scans"
        + (f", {len(run.data.val)} for validation" if run.data.val else "")
        + (f"; goes on from {start.checkpoint}" if start.checkpoint else "")
    )
    started = time.monotonic()
    train(run.trainer, run.task, run.data, start.checkpoint)
    finish(experiment, run, start.folder, inputs | {"seconds": round(time.monotonic() - started, 1)})
    return start.folder


def finish(experiment: Experiment, run: Prepared, folder: Path, facts: Mapping[str, Any]) -> None:
    """Package the weights of a run that came to its end, and write down how it went; all processes take part."""
    trainer = run.trainer
    tensors, steps = weights_of(trainer), trainer.global_step  # from all processes, where they are divided
    if not trainer.is_global_zero:
        return
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    best = next((c for c in callbacks if isinstance(c, BestWeights)), None)
    if best:
        tensors, steps = best.chosen(tensors, steps)
    export_run(run.task, tensors, experiment, run.data, folder / "weights", steps)
    throughput = next(c for c in callbacks if isinstance(c, Throughput))
    write_environment(
        folder,
        finished=True,
        steps=trainer.global_step,
        packaged_step=steps,
        epochs=trainer.current_epoch,
        scans=len(run.data.train),
        left_out=left_out(folder),
        scans_per_second=round(throughput.scans_per_second, 2),
        processes=trainer.world_size,
        **facts,
    )
    of_step = f", of step {steps}, the best {best.metric} ({best.value:.4g})" if best and best.value is not None else ""
    say(f"done after {trainer.global_step} steps; weights in {folder / 'weights'}{of_step}")
    if left_out(folder):
        say(f"{left_out(folder)} scans were left out, listed in {folder / QUARANTINE}")


def left_out(folder: Path) -> int:
    """Return how many scans a run left out because they couldn't be read."""
    file = folder / QUARANTINE
    return len(pd.read_csv(file)) if file.exists() else 0


def run(arguments: Sequence[str]) -> ExitCode:
    """Parse the command line and run the experiment."""
    options, flags = parse(arguments)
    check_options(options)
    if options.replay:
        return replay(options.replay, flags)
    if not options.config:
        raise UsageError("no experiment file", "the command line of `fmct fit`", "add --config experiments/NAME.yaml")
    experiment = load_experiment(options.config, flags)
    if options.print_config:
        print(yaml.safe_dump(as_record(experiment), sort_keys=False, allow_unicode=True), end="")
        return ExitCode.DONE
    try:
        folder = fit(experiment, fresh=options.fresh, with_changes=options.continue_with_changes)
    except Stopped as stop:
        say(stop.reason)
        return stop.exit_code
    return ExitCode.SOME_REJECTED if left_out(folder) else ExitCode.DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; expected errors are three lines, without a traceback unless `--debug`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return exit_code(lambda: run(arguments), debug="--debug" in arguments, speaks=first_to_speak)


if __name__ == "__main__":
    leave(main())
