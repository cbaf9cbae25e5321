"""What a run in steps needs, built from its experiment: data, task and Trainer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from fmct.callbacks.averaging import Averaging
from fmct.callbacks.preemption import Asked
from fmct.console.occupied import occupied
from fmct.data.datamodule import ScanDataModule
from fmct.experiment.loading import as_record
from fmct.experiment.runs import run_folder
from fmct.experiment.schema import Experiment
from fmct.experiment.weights import initial_backbone, setting_of
from fmct.tasks.base import Task
from fmct.tasks.classifier import ClassifierConfig


@dataclass(frozen=True)
class Prepared:
    """Ready to train."""

    data: ScanDataModule
    task: Task
    trainer: L.Trainer


def prepare(experiment: Experiment, asked: Asked, also: Sequence[L.Callback] = ()) -> Prepared:
    """Build what an experiment names, with its seed; nothing is written.

    Args:
        experiment: what is to run.
        asked: what this process hears of being asked to end.
        also: callbacks that look at every step after those of the experiment.

    Raises:
        UsageError: when manifest, cache or weights don't fit the experiment, or this machine can't do what it asks for.
    """
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    data = experiment.data.build(experiment.labels, experiment.seed)
    setting = setting_of(experiment, as_record(experiment), data)
    task = experiment.task.build(initial_backbone(experiment, data), setting)
    quiet_lightning()
    assert experiment.optimizer is not None  # what is trained in steps has one
    watching = experiment.callbacks.build(data, experiment.optimizer.warmup_fraction)
    if isinstance(experiment.task, ClassifierConfig) and experiment.task.ema_decay:
        watching.append(Averaging(experiment.task.ema_decay))
    return Prepared(data, task, experiment.trainer.build(run_folder(experiment), [*watching, *also], asked))


def is_first_process() -> bool:
    """Say whether this process writes, of several that run the same."""
    return getattr(rank_zero_only, "rank", 0) == 0


def alone_in(folder: Path) -> AbstractContextManager[None]:
    """Keep other runs out of a folder, see `occupied`; of several processes of a run the first does so for all."""
    return occupied(folder) if is_first_process() else nullcontext()


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
