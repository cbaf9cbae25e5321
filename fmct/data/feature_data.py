"""Scans of a manifest as features from a table, chosen as scans from a cache are: splits, sites, shots, labels."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmct.data.datamodule import DataConfig, ScanDataModule
from fmct.data.dataset import ScanDataset
from fmct.data.feature_table import FeatureTable, read_features
from fmct.models.features import FeaturesConfig


class FeatureDataset(ScanDataset):
    """One item per row of a manifest: `hu` is the scan's features, (D,) float32, and (B, D) in batches.

    Args:
        frame: rows of a manifest, all of them in the table.
        table: the features.
        labels: as `ScanDataset`.
        soft: as `ScanDataset`.

    Attributes:
        left_out: scans that aren't among them since the table lacks them.
    """

    def __init__(
        self, frame: pd.DataFrame, table: FeatureTable, labels: Sequence[str] = (), soft: bool = False
    ) -> None:
        self.table = table
        self.left_out = 0
        self._know(frame, labels, soft)

    def _read(self, scan_id: str) -> NDArray[np.float32]:
        return self.table.of(scan_id)

    def _where(self, scan_id: str) -> Path:
        return self.table.paths[0]


class FeatureDataModule(ScanDataModule):
    """Training and validation scans of an experiment with `data.features`.

    Attributes:
        table: the features of all scans.
        left_out: scans of the manifest's splits that the table lacks, with `data.only_with_features`.
    """

    table: FeatureTable

    def __init__(self, config: DataConfig, labels: Sequence[str], seed: int) -> None:
        self.left_out = 0
        super().__init__(config, labels, seed)

    def _open(self) -> None:
        self.table = read_features(self.config.features or ())

    def _available(self, frame: pd.DataFrame) -> pd.DataFrame:
        rows = self.table.present(frame, self.config.only_with_features, "data.only_with_features")
        self.left_out += len(frame) - len(rows)
        return rows

    def reorder(self, columns: Sequence[str]) -> None:
        """Put the features into the order of some names.

        Raises:
            UsageError: when they aren't the same.
        """
        self.table = self.table.ordered(columns)
        for scans in (self.train, self.val):
            if isinstance(scans, FeatureDataset):
                scans.table = self.table

    def _make(self, rows: pd.DataFrame, soft: bool) -> FeatureDataset:
        return FeatureDataset(rows, self.table, self.labels, soft)

    def _check_shapes(self) -> None:
        """Nothing to check: all rows of a table are alike."""


def feature_dataset(
    frame: pd.DataFrame, paths: Sequence[Path], config: FeaturesConfig, labels: Sequence[str], only_present: bool
) -> FeatureDataset:
    """Make the data set of an evaluation, from the tables that it is given.

    Args:
        frame: rows of a manifest.
        paths: the tables.
        config: names of the features that the weights were fitted on.
        labels: to deliver.
        only_present: leave out scans that the tables lack, and say how many; otherwise they are an error.

    Raises:
        UsageError: as `read_features`, `FeatureTable.ordered` and `FeatureTable.present`.
    """
    table = read_features(paths)
    table = table.ordered(config.columns) if config.columns else table
    rows = table.present(frame, only_present, "--only-with-features")
    scans = FeatureDataset(rows, table, labels)
    scans.left_out = len(frame) - len(rows)
    if scans.left_out:
        print(f"{scans.left_out} of {len(frame)} scans left out: {table.where} doesn't have them", file=sys.stderr)
    return scans
