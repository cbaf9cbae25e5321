"""The LightningDataModule over a manifest and its cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import blosc2
import lightning as L
import pandas as pd
import torch
from pydantic import Field
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from fmct.console.errors import UsageError
from fmct.data.dataset import ScanDataset
from fmct.data.manifest import read_manifest
from fmct.data.volumes import VolumeCache
from fmct.experiment.config import Config

Split = Literal["pretrain", "train", "val", "test", ""]


class DataConfig(Config):
    """Which scans, from where, and how they are fed."""

    manifest: Path = Field(description="manifest (.csv or .parquet) of the scans")
    cache: Path = Field(description="cache folder that `fmct preprocess` wrote")
    batch_size: int = Field(gt=0, description="scans per device and batch")
    workers: int = Field(0, ge=0, description="loader processes per device; 0 loads in the training process")
    train_splits: tuple[Split, ...] = Field(("train",), min_length=1, description='"" stands for rows without a split')
    val_splits: tuple[Split, ...] = Field(("val",), description="empty: no validation")
    soft_labels: bool = Field(
        False, description="train on soft:NAME, the share of readers, where the manifest has it; validation stays hard"
    )
    sites: tuple[str, ...] | None = Field(None, min_length=1, description="only these sites; null: all")

    def build(self, labels: Sequence[str], seed: int) -> ScanDataModule:
        """Build the DataModule for some labels."""
        return ScanDataModule(self, labels, seed)


class ScanDataModule(L.LightningDataModule):
    """Shuffled anew in every epoch, sharded over ranks, the same for any number of workers."""

    train: ScanDataset
    val: ScanDataset | None

    def __init__(self, config: DataConfig, labels: Sequence[str], seed: int) -> None:
        super().__init__()
        self.config = config
        self.labels = tuple(labels)
        self.seed = seed
        self.cache = VolumeCache.open(config.cache)
        frame = read_manifest(config.manifest)
        if config.sites is not None:
            frame = self._of_sites(frame, config.sites)
        self.train = self._dataset(frame, config.train_splits, config.soft_labels)
        has_val = bool(frame["split"].isin(config.val_splits).any()) if config.val_splits else False
        self.val = self._dataset(frame, config.val_splits) if has_val else None
        self._check_shapes()

    def _of_sites(self, frame: pd.DataFrame, sites: Sequence[str]) -> pd.DataFrame:
        missing = sorted(set(sites) - set(frame["site"]))
        if missing:
            raise UsageError(
                f"no scan comes from {', '.join(missing)}",
                self.config.manifest,
                f"data.sites can name: {', '.join(sorted(set(frame['site'])))}",
            )
        return frame[frame["site"].isin(sites)]

    def _dataset(self, frame: pd.DataFrame, splits: Sequence[str], soft: bool = False) -> ScanDataset:
        chosen = frame[frame["split"].isin(splits)]
        if chosen.empty:
            counts = ", ".join(f"{name or '(empty)'}: {n}" for name, n in frame["split"].value_counts().items())
            wanted = ", ".join(name or "(empty)" for name in splits)
            raise UsageError(
                f"no scan is in the split {wanted}; the manifest has {counts}",
                self.config.manifest,
                "assign splits with `fmct split`, or change data.train_splits / data.val_splits",
            )
        return ScanDataset(cached_rows(chosen, self.cache, self.config.manifest), self.cache, self.labels, soft)

    def _check_shapes(self) -> None:
        ids = [scan_id for data in (self.train, self.val) if data for scan_id in data.scan_ids]
        shapes = self.cache.shapes_zyx(ids)
        if len(shapes) > 1 or len(set(next(iter(shapes)))) > 1:
            raise UsageError(
                f"volumes must all be cubes of one size; here are {sorted(shapes)[:4]}",
                self.cache.folder,
                "preprocess with a head crop and --shape-voxels, into a new cache",
            )

    def training_batches(self, world_size: int) -> int:
        """Batches per rank in one epoch."""
        if self._drops_last(world_size):
            return len(self.train) // world_size // self.config.batch_size
        return math.ceil(math.ceil(len(self.train) / world_size) / self.config.batch_size)

    def _drops_last(self, world_size: int) -> bool:
        return len(self.train) >= self.config.batch_size * world_size

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Shuffled batches; an incomplete last one is dropped unless it is the only one."""
        world_size, rank = self._world()
        drop_last = self._drops_last(world_size)
        sampler: DistributedSampler[dict[str, Any]] = DistributedSampler(
            self.train, num_replicas=world_size, rank=rank, shuffle=True, seed=self.seed, drop_last=drop_last
        )
        return self._loader(self.train, sampler, drop_last)

    def val_dataloader(self) -> DataLoader[dict[str, Any]] | list[Any]:
        """Batches in the manifest's order; over ranks some scans come twice, which tasks undo by `index`."""
        if self.val is None:
            return []
        world_size, rank = self._world()
        sampler: DistributedSampler[dict[str, Any]] = DistributedSampler(
            self.val, num_replicas=world_size, rank=rank, shuffle=False, drop_last=False
        )
        return self._loader(self.val, sampler, drop_last=False)

    def _world(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _loader(
        self, data: ScanDataset, sampler: DistributedSampler[dict[str, Any]], drop_last: bool
    ) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            data,
            batch_size=self.config.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.config.workers,
            persistent_workers=self.config.workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=one_thread,
        )


def one_thread(_worker: int) -> None:
    """Keep a loader process to one thread: there is one process per core already."""
    blosc2.set_nthreads(1)
    torch.set_num_threads(1)


def cached_rows(frame: pd.DataFrame, cache: VolumeCache, manifest: Path) -> pd.DataFrame:
    """Keep the rows whose volumes are in the cache.

    Rows that preprocessing rejected are left out: they are in the cache's rejects.csv with a reason.

    Raises:
        UsageError: when a scan is neither in the cache nor among its rejects, or nothing is left.
    """
    inside = frame["scan_id"].isin(cache.index.index)
    rejected = frame["scan_id"].isin(cache.rejected_ids())
    missing = frame[~inside & ~rejected]
    fix = f"run `fmct preprocess {manifest} --cache {cache.folder.parent}`"
    if len(missing):
        raise UsageError(
            f"{len(missing)} of {len(frame)} scans are not in the cache, the first is {missing['scan_id'].iloc[0]}",
            cache.folder,
            fix,
        )
    if not inside.any():
        raise UsageError(f"all {len(frame)} scans were rejected by preprocessing", cache.folder / "rejects.csv", fix)
    return frame[inside]
