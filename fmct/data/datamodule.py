"""The LightningDataModule over a manifest and its cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from fmct.console.errors import UsageError
from fmct.data.cached_rows import cached_rows, rows_in
from fmct.data.dataset import Batch, ScanDataset
from fmct.data.fraction import share_of_patients
from fmct.data.loader import ScanLoader, scan_loader
from fmct.data.manifest import read_manifest
from fmct.data.quarantine import QUARANTINE, Quarantine
from fmct.data.sampling import Order, SamplingConfig, ShuffledSampling
from fmct.data.sharding import Shard
from fmct.data.shots import ShotsConfig
from fmct.data.volumes import VolumeCache
from fmct.experiment.config import Config

Split = Literal["pretrain", "train", "val", "test", ""]


class DataConfig(Config):
    """Which scans, from where, and how they are fed."""

    manifest: Path = Field(description="manifest (.csv or .parquet) of the scans")
    cache: Path | None = Field(None, description="cache folder that `fmct preprocess` wrote")
    features: tuple[Path, ...] | None = Field(
        None,
        min_length=1,
        description="instead of a cache: tables of features (scan_id, then numbers), for task.mode logreg and knn",
    )
    only_with_features: bool = Field(
        False, description="leave out scans that data.features lacks, and say how many; otherwise they are an error"
    )
    batch_size: int = Field(gt=0, description="scans per device and batch")
    workers: int = Field(0, ge=0, description="loader processes per device; 0 loads in the training process")
    prefetch_batches: int = Field(2, gt=0, description="batches that each loader process reads ahead")
    timeout_s: int = Field(
        600, ge=0, description="seconds that a batch of the loader processes is waited for; 0: for ever"
    )
    train_splits: tuple[Split, ...] = Field(("train",), min_length=1, description='"" stands for rows without a split')
    val_splits: tuple[Split, ...] = Field(("val",), description="empty: no validation")
    soft_labels: bool = Field(
        False, description="train on soft:NAME, the share of readers, where the manifest has it; validation stays hard"
    )
    sites: tuple[str, ...] | None = Field(None, min_length=1, description="only these sites; null: all")
    fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the training patients, alike in site; a smaller share is part of a larger one",
    )
    fraction_seed: int = Field(0, ge=0, description="decides who they are, apart from the run's own seed")
    sampling: SamplingConfig = Field(
        ShuffledSampling(), description="shuffled: every scan once per epoch; balanced: positives as often as negatives"
    )
    shots: ShotsConfig | None = Field(
        None, description="train on k positive and k negative patients of a label only; null: on all scans"
    )
    max_bad_scans: int = Field(
        0,
        ge=0,
        description="training scans that may be left out because they can't be read, listed in the run's quarantine.csv"
        "; one more stops the run. Validation leaves none out",
    )

    def build(self, labels: Sequence[str], seed: int) -> ScanDataModule:
        """Build the DataModule for some labels."""
        if self.features:
            from fmct.data.feature_data import FeatureDataModule

            return FeatureDataModule(self, labels, seed)
        return ScanDataModule(self, labels, seed)

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        if (self.cache is None) == (self.features is None):
            raise ValueError("cache is missing" if self.cache is None else "give cache or features, not both")
        if self.only_with_features and not self.features:
            raise ValueError("only_with_features goes with features")
        return self


class ScanDataModule(L.LightningDataModule):
    """Feeds the scans of a manifest: sharded over ranks, the same for any number of workers.

    Attributes:
        frame: the manifest's rows, of `data.sites` only where those are given.
        least: scans that a training batch can't do without: the batch norm of a classifier's head needs two.
        loaders: that were made, whose processes `end_loaders` ends.
    """

    train: ScanDataset
    val: ScanDataset | None

    def __init__(self, config: DataConfig, labels: Sequence[str], seed: int) -> None:
        super().__init__()
        self.config = config
        self.labels = tuple(labels)
        self.seed = seed
        self.least = 2 if labels else 1
        self.loaders: list[ScanLoader] = []
        self._open()
        frame = read_manifest(config.manifest)
        if config.sites is not None:
            frame = self._of_sites(frame, config.sites)
        self.frame = frame
        self.train = self._dataset(frame, config.train_splits, training=True)
        self.order = config.sampling.build(self.train.targets, self.labels, seed)
        has_val = bool(frame["split"].isin(config.val_splits).any()) if config.val_splits else False
        self.val = self._dataset(frame, config.val_splits) if has_val else None
        self._check_shapes()

    def _open(self) -> None:
        assert self.config.cache is not None
        self.cache = VolumeCache.open(self.config.cache)

    def _of_sites(self, frame: pd.DataFrame, sites: Sequence[str]) -> pd.DataFrame:
        missing = sorted(set(sites) - set(frame["site"]))
        if missing:
            raise UsageError(
                f"no scan comes from {', '.join(missing)}",
                self.config.manifest,
                f"data.sites can name: {', '.join(sorted(set(frame['site'])))}",
            )
        return frame[frame["site"].isin(sites)]

    def _dataset(self, frame: pd.DataFrame, splits: Sequence[str], training: bool = False) -> ScanDataset:
        rows = self._available(rows_in(frame, splits, self.config.manifest))
        if training:
            rows = share_of_patients(rows, self.config.fraction, self.config.fraction_seed)
            rows = self.config.shots.choose(rows, self.config.manifest) if self.config.shots else rows
        return self._make(rows, training and self.config.soft_labels)

    def scans_of(self, frame: pd.DataFrame) -> ScanDataset:
        """Return other rows of a manifest as scans, from the same cache or table, each as it is.

        Raises:
            UsageError: when some aren't there.
        """
        return self._make(self._available(frame), False)

    def in_splits(self, splits: Sequence[str]) -> pd.DataFrame:
        """Return the rows of some splits, whatever `data.fraction` and `data.shots` leave of them.

        Raises:
            UsageError: when there are none.
        """
        return rows_in(self.frame, splits, self.config.manifest)

    def _available(self, frame: pd.DataFrame) -> pd.DataFrame:
        return cached_rows(frame, self.cache, self.config.manifest)

    def _make(self, rows: pd.DataFrame, soft: bool) -> ScanDataset:
        return ScanDataset(rows, self.cache, self.labels, soft)

    def _check_shapes(self) -> None:
        ids = [scan_id for data in (self.train, self.val) if data for scan_id in data.scan_ids]
        shapes = sorted(self.cache.shapes_zyx(ids))
        if len(shapes) > 1 or len(set(shapes[0])) > 1:
            raise UsageError(
                f"volumes must all be cubes of one size; here are {', '.join(map(str, shapes[:4]))}",
                self.cache.folder,
                "preprocess with a head crop and --shape-voxels, into a new cache",
            )

    def training_batches(self, world_size: int) -> int:
        """Batches per rank in one epoch."""
        return Shard(self.order, self.config.batch_size, world_size=world_size).batches

    def train_dataloader(self) -> ScanLoader:
        """Batches in the order of the epoch that is due; an incomplete last one is dropped unless it is the only one.

        Raises:
            UsageError: when the scans are too few for this many processes.
        """
        world_size, rank = self._world()
        shard = Shard(self.order, self.config.batch_size, rank, world_size)
        if shard.smallest_batch < self.least:
            raise UsageError(
                f"{self.order.draws} training scans on {world_size} devices leave a batch of one, and the classifier's "
                "batch norm needs two",
                self.config.manifest,
                "use fewer devices, or add scans to data.train_splits",
            )
        if self.trainer:
            progress: Any = self.trainer.fit_loop.epoch_progress.current
            shard.set_epoch(progress.processed)
        return self._loader(self.train, shard, self.config.max_bad_scans)

    def val_dataloader(self) -> ScanLoader | list[Any]:
        """Batches in the manifest's order; over ranks some scans come twice, which tasks undo by `index`.

        A scan that can't be read stops the run, whatever `max_bad_scans`: a metric over fewer scans is another metric.
        """
        if self.val is None:
            return []
        world_size, rank = self._world()
        scans = len(self.val)
        order = Order(scans, lambda _: np.arange(scans))
        return self._loader(self.val, Shard(order, self.config.batch_size, rank, world_size, keep_all=True), 0)

    def _world(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _loader(self, data: ScanDataset, shard: Shard, max_bad_scans: int) -> ScanLoader:
        device = self.trainer.strategy.root_device if self.trainer else None
        loader = scan_loader(
            data,
            self.config.batch_size,
            self.config.workers,
            shard=shard,
            prefetch_batches=self.config.prefetch_batches,
            pin_memory=device is not None and device.type == "cuda",
            seed=self.seed,
            timeout_s=self.config.timeout_s,
        )
        if self.trainer:
            file = Path(self.trainer.default_root_dir) / QUARANTINE
            together = device if shard.world_size > 1 else None
            quarantine = Quarantine(file, max_bad_scans, self.least, shard.rank, together)
            loader.admit = partial(self._admit, quarantine)
        self.loaders.append(loader)
        return loader

    def end_loaders(self) -> None:
        """End the processes of all loaders that were made."""
        while self.loaders:
            self.loaders.pop().end()

    def _admit(self, quarantine: Quarantine, batch: Batch) -> Batch:
        assert self.trainer is not None
        return quarantine.admit(batch, self.trainer.current_epoch, self.trainer.global_step)
