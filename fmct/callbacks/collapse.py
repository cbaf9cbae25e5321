"""Alarm when pretraining collapses: when what the network says no longer depends on the scan.

B scans of a batch over all processes, D width of their features, K prototypes.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from fmct.callbacks.logging_steps import log_is_due, write_scalars
from fmct.console.errors import FmctError
from fmct.losses.diversity import feature_std, rankme
from fmct.tasks.base import Task

ENTROPY_MARGIN = 0.01
LEAST_SPREAD = 2.0**-9
LEAST_RANK = 1.2
LEAST_SCANS = 4
PATIENCE = 10


@dataclass(frozen=True)
class Readings:
    """What is known of a step; None where the task doesn't say.

    Attributes:
        scans: B.
        spread: standard deviation of L2-normalized features times sqrt(D): 1 where directions are spread evenly.
        rank: effective rank of the features with their mean taken out: at least 1.
        prototypes: K.
        teacher_entropy: mean entropy of the teacher's distributions over the prototypes, nats.
        kl_to_uniform: of the mean of these distributions from the uniform one, nats.
    """

    scans: int = 0
    spread: float | None = None
    rank: float | None = None
    prototypes: int | None = None
    teacher_entropy: float | None = None
    kl_to_uniform: float | None = None


def symptom(readings: Readings) -> str | None:
    """Say what shows a collapse, if anything does.

    Of the teacher's targets: uniform (their mean entropy is within 1 % of log K), or one prototype for all (the entropy
    of their mean is below 1 % of log K). Of the features: all alike (they spread by less than 1/512 of their length,
    which bfloat16 can't tell apart), or all along one line (the effective rank, once their mean is taken out, is below
    1.2; with it, even a network that learns well has less than 2, as scans of heads are alike).
    """
    if readings.prototypes and readings.teacher_entropy is not None and readings.kl_to_uniform is not None:
        most = math.log(readings.prototypes)
        if readings.teacher_entropy > (1 - ENTROPY_MARGIN) * most:
            return (
                f"the teacher spreads every scan evenly over all prototypes (entropy {readings.teacher_entropy:.3f} of "
                f"at most {most:.3f})"
            )
        of_mean = most - readings.kl_to_uniform
        if of_mean < ENTROPY_MARGIN * most:
            return f"the teacher gives all scans one prototype (entropy of its mean {of_mean:.3f} of {most:.3f})"
    if readings.scans >= LEAST_SCANS:
        if readings.spread is not None and readings.spread < LEAST_SPREAD:
            return f"the features of all scans are alike (they spread by {readings.spread:.2g} of their length)"
        if readings.rank is not None and readings.rank < LEAST_RANK:
            return f"the features of all scans lie on one line (effective rank {readings.rank:.2f})"
    return None


class CollapseAlarm(L.Callback):
    """Logs how much features differ, and warns or stops the run when they don't, at log steps alone.

    Logs `train/feature_std` (1 where directions are spread evenly), `train/rankme`, and `train/rankme_centered`, with
    the mean taken out. The symptom must show at ten log steps in a row after the warm-up of the learning rate.

    Args:
        action: "warn" prints three lines, once; "stop" ends the run with an error, after a checkpoint; "off" only logs.
        warmup_fraction: share of the run's steps in which nothing is judged.
        patience: log steps in a row.
    """

    def __init__(
        self, action: Literal["warn", "stop", "off"], warmup_fraction: float, patience: int = PATIENCE
    ) -> None:
        self.action = action
        self.warmup_fraction = warmup_fraction
        self.patience = patience
        self.in_a_row = 0
        self.alarm: FmctError | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log and judge when the trainer logs."""
        if not isinstance(pl_module, Task) or not log_is_due(trainer, batch_idx):
            return
        readings = self._read(trainer, pl_module)
        if self.action == "off" or self.alarm or trainer.global_step <= self.warmup_fraction * pl_module.total_steps:
            return
        found: str | None = trainer.strategy.broadcast(symptom(readings))
        self.in_a_row = self.in_a_row + 1 if found else 0
        if found and self.in_a_row >= self.patience:
            self.alarm = FmctError(
                f"training has collapsed: {found}",
                f"step {trainer.global_step} and the {self.patience - 1} log steps before it",
                "self-distillation: task.centering sinkhorn, a lower task.teacher_temperature, a longer warm-up or a "
                "lower optimizer.lr may help; start over with --fresh; callbacks.collapse off silences this",
            )
            if self.action == "stop":
                trainer.should_stop = True
            elif trainer.is_global_zero:
                print(f"warning: {self.alarm}", file=sys.stderr, flush=True)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End in an error, now that the run is saved.

        Raises:
            FmctError: when the run was stopped for a collapse.
        """
        if self.alarm and self.action == "stop":
            raise self.alarm

    def _read(self, trainer: L.Trainer, task: Task) -> Readings:
        scans, spread, rank = 0, None, None
        if task.watched_features is not None:
            features = gathered(task.watched_features.float(), trainer.world_size)
            scans = len(features)
            if scans > 1 and bool(features.isfinite().all()):
                spread = feature_std(features) * math.sqrt(features.shape[1])
                rank = rankme(features - features.mean(0))
                values = {"feature_std": spread, "rankme": rankme(features), "rankme_centered": rank}
                write_scalars(trainer, {f"train/{name}": float(value) for name, value in values.items()})
        said = trainer.callback_metrics
        return Readings(
            scans,
            as_number(spread),
            as_number(rank),
            task.prototypes,
            as_number(said.get("train/teacher_entropy")),
            as_number(said.get("train/kl_to_uniform")),
        )


def gathered(features_BD: Tensor, processes: int) -> Tensor:
    """Put the features of all processes together; they may hold different numbers of scans."""
    return torch.cat(gather_all_tensors(features_BD)) if processes > 1 else features_BD


def as_number(value: Tensor | None) -> float | None:
    """Fetch a value from the device."""
    return None if value is None else float(value)
