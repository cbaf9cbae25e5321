"""The Lightning Trainer of an experiment: hardware, strategy, precision, loggers and callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, Strategy
from pydantic import Field, model_validator
from rich.console import Console

from fmct.callbacks.best_weights import BestWeights
from fmct.callbacks.companions import Places
from fmct.callbacks.data_wait import DataWait
from fmct.callbacks.pictures import Pictures
from fmct.callbacks.preemption import Asked, Preemption
from fmct.callbacks.run_progress import BarProgress, PlainProgress
from fmct.callbacks.step_limit import StepLimit
from fmct.callbacks.throughput import Throughput
from fmct.console.errors import UsageError
from fmct.experiment.checkpoint_files import CheckpointFiles
from fmct.experiment.checkpoints import Checkpoints
from fmct.experiment.compilation import require_compiler
from fmct.experiment.config import Config
from fmct.experiment.event_file import EventFile
from fmct.experiment.metrics_table import MetricsTable
from fmct.experiment.sharding import FullySharded


class TrainerConfig(Config):
    """How long to train and on what hardware."""

    max_epochs: int | None = Field(None, gt=0, description="passes over the training scans")
    max_steps: int | None = Field(None, gt=0, description="optimizer steps; the earlier of the two limits ends the run")
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | Literal["auto"] = Field(1, description="devices per node; on a CPU, processes")
    nodes: int = Field(1, gt=0, description="machines")
    strategy: str = Field(
        "auto", description="auto, ddp, fsdp2 (parameters divided among processes) or another one of Lightning's"
    )
    precision: Literal["32-true", "bf16-mixed", "bf16-true"] = "32-true"
    matmul_precision: Literal["highest", "high", "medium"] = Field(
        "high", description="torch.set_float32_matmul_precision"
    )
    compile: bool = Field(False, description="torch.compile of the backbone's blocks; needs a C++ compiler")
    accumulate_batches: int = Field(1, gt=0, description="batches per optimizer step")
    clip_norm: float | None = Field(None, gt=0, description="greatest norm of the whole gradient")
    validate_every_epochs: int = Field(1, gt=0)
    checkpoint_every_epochs: int = Field(1, gt=0)
    checkpoint_every_steps: int = Field(
        0, ge=0, description="also within epochs, so many optimizer steps apart, for epochs of hours; 0: none"
    )
    checkpoint_every_hours: float | None = Field(
        1.0, gt=0, description="also within epochs, when the last checkpoint is so many hours old; null: never"
    )
    checkpoint_keep: int = Field(
        2, gt=0, description="newest checkpoints kept: where one is damaged, the run goes on from the one before"
    )
    timeout_s: int = Field(
        1800, gt=0, description="seconds that processes (ddp, fsdp2) wait for one that starts, hangs or died"
    )
    keep: Literal["last", "best"] = Field(
        "last",
        description="which weights are packaged: those at the end, or at the best validation; every checkpoint holds "
        "the best so far too",
    )
    keep_metric: str = Field("val/auroc", description="what is best by, of what validations log; for keep: best")
    checkpoints: bool = Field(
        True, description="false: none, for runs that are over so soon that one that was killed may start over"
    )
    tensorboard: bool = Field(True, description="false: no event files; metrics.csv has the same numbers")
    pictures_every_steps: int = Field(500, ge=0, description="reconstructions and views; 0 draws none")
    log_every_steps: int = Field(10, gt=0)
    deterministic: bool = Field(False, description="refuse operations that aren't reproducible bit for bit")
    runs: Path = Field(Path("runs"), description="folder that holds the run's folder")

    @model_validator(mode="after")
    def _keeps_what_is_validated(self) -> TrainerConfig:
        if self.keep == "best" and self.max_epochs is not None and self.max_epochs < self.validate_every_epochs:
            raise ValueError(
                f"keep best needs a validation: max_epochs {self.max_epochs} is less than validate_every_epochs "
                f"{self.validate_every_epochs}"
            )
        return self

    def build(self, folder: Path, watching: Sequence[Callback] = (), asked: Asked | None = None) -> L.Trainer:
        """Build the Trainer that writes into a run's folder.

        Args:
            folder: the run's.
            watching: callbacks of the section `callbacks`, the first to look at a step.
            asked: what this process hears of being asked to end; None: nobody listens.

        Raises:
            UsageError: when this machine can't do what is asked for.
        """
        if self.compile:
            require_compiler()
        torch.set_float32_matmul_precision(self.matmul_precision)
        on_terminal = Console().is_terminal
        limit = [] if self.max_steps is None else [StepLimit(self.max_steps)]
        saving = Checkpoints(
            folder / "checkpoints",
            self.checkpoint_every_epochs,
            self.checkpoint_every_steps,
            self.checkpoint_every_hours,
            self.checkpoint_keep,
        )
        callbacks: list[Callback] = [
            *limit,  # first: it says which step is the last
            *([saving] if self.checkpoints else []),
            Places(),
            Throughput(),
            *watching,
            BarProgress() if on_terminal else PlainProgress(),
        ]
        if self.keep == "best":
            callbacks.append(BestWeights(self.keep_metric))
        if self.pictures_every_steps:
            callbacks.append(Pictures(folder / "pictures", self.pictures_every_steps))
        if asked:
            callbacks.append(Preemption(asked, saving if self.checkpoints else None))
        events = [EventFile(folder / "tb")] if self.tensorboard else []
        try:
            return L.Trainer(
                accelerator=self.accelerator,
                devices=self.devices,
                num_nodes=self.nodes,
                strategy=self._strategy(),
                plugins=[CheckpointFiles()],
                precision=self.precision,
                max_epochs=self.max_epochs or -1,
                accumulate_grad_batches=self.accumulate_batches,
                gradient_clip_val=self.clip_norm,
                check_val_every_n_epoch=self.validate_every_epochs,
                log_every_n_steps=self.log_every_steps,
                deterministic=self.deterministic,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                enable_model_summary=False,
                enable_checkpointing=self.checkpoints,  # else Lightning saves in its own way
                logger=[*events, MetricsTable(folder / "metrics.csv")],
                callbacks=callbacks,
                profiler=DataWait(),
                default_root_dir=folder,
            )
        except (MisconfigurationException, ValueError, RuntimeError) as error:
            raise UsageError(
                str(error).splitlines()[0],
                f"trainer: accelerator {self.accelerator}, devices {self.devices}, strategy {self.strategy}",
                "change these three to what this machine has; accelerator auto, devices 1, strategy auto run anywhere",
            ) from error

    def _strategy(self) -> Strategy | str:
        patience = timedelta(seconds=self.timeout_s)
        if self.strategy == "fsdp2":
            return FullySharded(patience)
        return DDPStrategy(timeout=patience) if self.strategy == "ddp" else self.strategy
