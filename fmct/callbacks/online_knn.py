"""What the features are worth while they are learned: nearest neighbors on a small labeled set, every few epochs.

The labels stay in this callback: no step of the training depends on them. N scans, D width, L labels.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from pydantic import Field

from fmct.callbacks.evaluation_mode import evaluating
from fmct.callbacks.logging_steps import write_scalars
from fmct.console.errors import FmctError, UsageError
from fmct.data.cached_rows import cached_rows
from fmct.data.datamodule import ScanDataModule, Split
from fmct.data.dataset import ScanDataset
from fmct.data.manifest import read_manifest
from fmct.data.presets import check_same_settings
from fmct.data.quarantine import refuse
from fmct.data.volumes import VolumeCache
from fmct.evaluation.knn import knn_aurocs
from fmct.experiment.config import Config
from fmct.models.pooling import pooled, prefix_tokens_of
from fmct.models.pooling_kinds import Pooling
from fmct.tasks.base import Task


class OnlineKNNConfig(Config):
    """AUROC of a weighted nearest-neighbor classifier on frozen features (Wu et al. 2018, arXiv 1805.01978)."""

    manifest: Path = Field(description="labeled scans; a patient is in one split only")
    labels: tuple[str, ...] = Field(min_length=1, description="label columns of that manifest, without `label:`")
    cache: Path | None = Field(None, description="cache of these scans; null: data.cache")
    bank_splits: tuple[Split, ...] = Field(("train",), min_length=1, description="splits whose scans are neighbors")
    query_splits: tuple[Split, ...] = Field(("val",), min_length=1, description="splits whose scans are asked about")
    every_epochs: int = Field(5, gt=0, description="epochs between two times; once more at the end")
    k: int = Field(20, gt=0, description="neighbors")
    features: Literal["cls", "patches"] = Field("cls", description="the CLS token, or the mean of the patches' tokens")
    batch_size: int = Field(8, gt=0, description="scans embedded at once, per device")

    def build(self, data: ScanDataModule) -> OnlineKNN:
        """Find the scans.

        Raises:
            UsageError: when manifest, labels or cache don't fit, or a label lacks a class on either side.
        """
        cache = VolumeCache.open(self.cache) if self.cache else data.cache
        fix = "preprocess the labeled scans with the settings of data.cache"
        check_same_settings(data.cache.settings, cache.settings, cache.folder, fix)
        frame = read_manifest(self.manifest)
        both = set(self.bank_splits) & set(self.query_splits)
        if both:
            raise UsageError(
                f"the split {', '.join(sorted(both))} is both in the bank and asked about",
                "callbacks.online_knn",
                "give bank_splits and query_splits nothing in common",
            )
        scans = frame[frame["split"].isin((*self.bank_splits, *self.query_splits))]
        rows = cached_rows(scans, cache, self.manifest)
        dataset = ScanDataset(rows, cache, self.labels)
        in_bank = rows["split"].isin(self.bank_splits).to_numpy(bool)
        for side, chosen in (("bank_splits", in_bank), ("query_splits", ~in_bank)):
            for label, column in zip(self.labels, dataset.targets[chosen].T, strict=True):
                if not {0.0, 1.0} <= set(column.tolist()):
                    raise UsageError(
                        f"label {label} has {np.sum(column == 1)} positive and {np.sum(column == 0)} negative scans in "
                        f"{side}",
                        self.manifest,
                        f"choose other labels or splits in callbacks.online_knn, whose {side} need both classes",
                    )
        return OnlineKNN(self, dataset, in_bank)


class OnlineKNN(L.Callback):
    """Embeds the labeled scans with the backbone that is to be packaged, and logs `knn/auroc` and `knn/auroc_LABEL`.

    Args:
        config: what to do.
        dataset: N scans with their labels.
        in_bank: (N,) bool, whose labels are known to the classifier; the others are asked about.
    """

    def __init__(self, config: OnlineKNNConfig, dataset: ScanDataset, in_bank: NDArray[np.bool_]) -> None:
        self.config = config
        self.dataset = dataset
        self.in_bank = in_bank
        self.last_step = -1

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look after every few epochs."""
        if (trainer.current_epoch + 1) % self.config.every_epochs == 0:
            self._look(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at what the run arrived at."""
        self._look(trainer, pl_module)

    def _look(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if not isinstance(task, Task) or trainer.global_step == self.last_step:
            return
        self.last_step = trainer.global_step
        features_ND = self.embed(trainer, task)
        bank, labels = self.in_bank, self.dataset.targets
        values = knn_aurocs(features_ND[bank], labels[bank], features_ND[~bank], labels[~bank], self.config.k)
        named = {f"knn/auroc_{label}": value for label, value in zip(self.config.labels, values, strict=True)}
        named["knn/auroc"] = float(np.mean(values))
        write_scalars(trainer, named)  # at once, so that a checkpoint of this epoch never comes without them

    def embed(self, trainer: L.Trainer, task: Task) -> NDArray[np.float32]:
        """Embed all scans, each on one process, in evaluation mode: (N, D), the same on every process.

        Raises:
            FmctError: on every process, naming a scan that one of them couldn't read.
        """
        backbone = task.packaged_backbone()
        scans, processes = len(self.dataset), trainer.world_size
        each = math.ceil(scans / processes)
        mine = np.resize(np.arange(scans), each * processes)[trainer.global_rank :: processes]
        parts: list[NDArray[np.float32]] = []
        failure: FmctError | None = None
        with evaluating(backbone), torch.no_grad(), trainer.precision_plugin.forward_context():
            for start in range(0, each, self.config.batch_size):
                try:
                    batch = refuse(self.dataset.__getitems__(mine[start : start + self.config.batch_size].tolist()))
                except FmctError as error:
                    failure = error
                    break
                tokens = backbone(task.setting.input.whole(batch["hu"].to(task.device)))
                pooling: Pooling = "cls" if self.config.features == "cls" else "mean"
                parts.append(pooled(tokens, pooling, prefix_tokens_of(backbone)).float().cpu().numpy())
        found: list[Any] = [(mine, parts, failure)]
        if processes > 1:
            found = [None] * processes
            dist.all_gather_object(found, (mine, parts, failure))
        failures = [failed for _, _, failed in found if failed is not None]
        if failures:
            raise failures[0]
        rows = np.concatenate([rows for rows, _, _ in found])
        features = np.concatenate([part for _, parts, _ in found for part in parts])
        every_scan_once = np.unique(rows, return_index=True)[1]
        unique: NDArray[np.float32] = features[every_scan_once]
        return unique
