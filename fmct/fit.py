"""`fmct fit`: pretrain or adapt a model as an experiment file says."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import pandas as pd
import yaml
from lightning.pytorch.utilities import rank_zero_only

from fmct.callbacks.averaging import Averaging, weights_of
from fmct.callbacks.best_weights import BestWeights
from fmct.callbacks.throughput import Throughput
from fmct.console.command import exit_code
from fmct.console.errors import ExitCode, UsageError
from fmct.console.leaving import leave
from fmct.data.quarantine import QUARANTINE
from fmct.experiment.loading import as_record, load_experiment
from fmct.experiment.probing import fit_probe
from fmct.experiment.runs import begin, is_finished, run_folder, write_environment
from fmct.experiment.schema import Experiment
from fmct.experiment.speaking import first_to_speak
from fmct.experiment.weights import export_run, initial_backbone, setting_of
from fmct.tasks.classifier import ClassifierConfig

EXAMPLES = """\
Every key of the experiment file is a flag; flags win over the environment (FMCT_OPTIMIZER__LR=1e-4), which wins over
the files, of which later ones win over earlier ones.

examples:
  fmct fit --config experiments/pretrain_mae_smoke.yaml
  fmct fit --config experiments/pretrain_mae_vitb.yaml --config experiments/overlays/smoke.yaml
  fmct fit --config experiments/pretrain_mae_vitb.yaml --optimizer.lr 1e-4 --trainer.devices 2 --trainer.strategy ddp
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
    parser.add_argument("--print-config", action="store_true", help="print the whole configuration and stop")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options, flags = parser.parse_known_args(list(arguments))
    return options, flags


def fit(experiment: Experiment, *, fresh: bool = False) -> Path:
    """Run an experiment to its end and write its weight package.

    Args:
        experiment: what to run.
        fresh: start over, even if the run could go on.

    Returns:
        The run's folder.

    Raises:
        UsageError: when manifest, cache, weights or an existing run don't fit the experiment.
    """
    if isinstance(experiment.task, ClassifierConfig) and experiment.task.is_probe:
        return fit_probe(experiment, fresh=fresh)
    record = as_record(experiment)
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    data = experiment.data.build(experiment.labels, experiment.seed)
    task = experiment.task.build(initial_backbone(experiment, data), setting_of(experiment, record, data))
    quiet_lightning()
    assert experiment.optimizer is not None  # what is trained in steps has one
    watching = experiment.callbacks.build(data, experiment.optimizer.warmup_fraction)
    if isinstance(experiment.task, ClassifierConfig) and experiment.task.ema_decay:
        watching.append(Averaging(experiment.task.ema_decay))
    trainer = experiment.trainer.build(run_folder(experiment), watching)
    first_process = getattr(rank_zero_only, "rank", 0) == 0
    start = begin(experiment, fresh=fresh, first_process=first_process)
    if is_finished(start.folder):
        say(f"{start.folder} is finished already; start over with --fresh, or give another --name")
        return start.folder
    say(
        f"{experiment.name}: {experiment.task.kind} on {len(data.train)} scans"
        + (f", {len(data.val)} for validation" if data.val else "")
        + (f"; goes on from {start.checkpoint}" if start.checkpoint else "")
    )
    started = time.monotonic()
    trainer.fit(task, datamodule=data, ckpt_path=start.checkpoint, weights_only=True if start.checkpoint else None)
    if trainer.interrupted:
        raise KeyboardInterrupt
    tensors, steps = weights_of(trainer), trainer.global_step  # from all processes, where they are divided
    if trainer.is_global_zero:
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        best = next((c for c in callbacks if isinstance(c, BestWeights)), None)
        if best:
            tensors, steps = best.chosen(tensors, steps)
        export_run(task, tensors, experiment, data, start.folder / "weights", steps)
        throughput = next(c for c in callbacks if isinstance(c, Throughput))
        write_environment(
            start.folder,
            finished=True,
            steps=trainer.global_step,
            packaged_step=steps,
            epochs=trainer.current_epoch,
            scans=len(data.train),
            left_out=left_out(start.folder),
            seconds=round(time.monotonic() - started, 1),
            scans_per_second=round(throughput.scans_per_second, 2),
            processes=trainer.world_size,
        )
        of_step = (
            f", of step {steps}, the best {best.metric} ({best.value:.4g})" if best and best.value is not None else ""
        )
        say(f"done after {trainer.global_step} steps; weights in {start.folder / 'weights'}{of_step}")
        if left_out(start.folder):
            say(f"{left_out(start.folder)} scans were left out, listed in {start.folder / QUARANTINE}")
    return start.folder


def left_out(folder: Path) -> int:
    """Return how many scans a run left out because they couldn't be read."""
    file = folder / QUARANTINE
    return len(pd.read_csv(file)) if file.exists() else 0


@rank_zero_only
def say(message: str) -> None:
    """Print a line, on the first rank only."""
    print(message, flush=True)


def quiet_lightning() -> None:
    """Drop what Lightning says that doesn't apply here, each for its reason; real warnings stay."""
    for message in (
        ".*does not have many workers.*",  # the number of workers is the experiment's choice
        ".*The number of training batches.*",  # tiny runs log at their end all the same
        ".*Trying to infer the `batch_size`.*",  # `scan_id` and `hu` agree on it
        ".*Checkpoint directory .* exists and is not empty.*",  # resuming
        ".*Total length of `list` across ranks is zero.*",  # no validation was asked for
        ".*srun.*",  # running one process inside a SLURM job is allowed
        ".*have no `validation_step`.*",  # self-distillation has nothing to validate
        ".*have no `val_dataloader`.*",  # a benchmark validates nothing
        ".*module\\(s\\) in eval mode.*",  # teachers and frozen backbones are meant to be
        ".*You have overridden `on_after_batch_transfer`.*",  # tasks make the views, not the DataModule
        ".*torch.distributed.nn.functional.all_gather is deprecated.*",  # between Lightning and torch
        ".*isinstance\\(treespec, LeafSpec\\).*",  # between Lightning and torch
    ):
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def run(arguments: Sequence[str]) -> ExitCode:
    """Parse the command line and run the experiment."""
    options, flags = parse(arguments)
    if not options.config:
        raise UsageError("no experiment file", "the command line of `fmct fit`", "add --config experiments/NAME.yaml")
    experiment = load_experiment(options.config, flags)
    if options.print_config:
        print(yaml.safe_dump(as_record(experiment), sort_keys=False, allow_unicode=True), end="")
        return ExitCode.DONE
    folder = fit(experiment, fresh=options.fresh)
    return ExitCode.SOME_REJECTED if left_out(folder) else ExitCode.DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; expected errors are three lines, without a traceback unless `--debug`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return exit_code(lambda: run(arguments), debug="--debug" in arguments, speaks=first_to_speak)


if __name__ == "__main__":
    leave(main())
