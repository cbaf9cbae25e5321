"""Scans of a manifest, read from the cache: int16 HU and known labels, nothing decided yet.

L labels; Z, Y, X voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from fmct.console.errors import UsageError, nearest
from fmct.data.labels.source import SOFT_PREFIX, shares
from fmct.data.manifest import LABEL_PREFIX, label_names
from fmct.data.volumes import VolumeCache


class ScanDataset(Dataset[dict[str, Any]]):
    """One item per row of a manifest.

    Args:
        frame: rows of a manifest.
        cache: the cache that holds their volumes.
        labels: label columns to deliver, without the prefix.
        soft: take a target from `soft:NAME` (the share of readers who saw it) where the row has it.

    Raises:
        UsageError: when the manifest has no such label or, with `soft`, no `soft:NAME` for any of them, or a share
            isn't within 0 and 1.
    """

    def __init__(self, frame: pd.DataFrame, cache: VolumeCache, labels: Sequence[str] = (), soft: bool = False) -> None:
        self.frame = frame.reset_index(drop=True)
        self.cache = cache
        self.labels = tuple(labels)
        self.scan_ids: list[str] = self.frame["scan_id"].tolist()
        known = label_names(frame)
        for label in labels:
            if label not in known:
                guess = nearest(label, known)
                raise UsageError(
                    f"the manifest has no label {label}",
                    f"its columns {', '.join(LABEL_PREFIX + name for name in known) or '(no label columns at all)'}",
                    f"did you mean {guess}?" if guess else "add labels with `fmct label`",
                )
        columns = [self.frame[LABEL_PREFIX + label].astype("float32") for label in labels]
        if soft:
            columns = with_shares(columns, self.frame, labels, str(frame.attrs.get("source", "the manifest")))
        self.targets: NDArray[np.float32] = (
            np.stack([column.to_numpy() for column in columns], 1)
            if columns
            else np.zeros((len(self.frame), 0), np.float32)
        )

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `hu` (1, Z, Y, X) int16, `index`, `scan_id` and `target` (L,), 0 to 1 with NaN where unknown.

        Volumes that are windowed already (preset `fmhct`) stand in `hu` as (C, Z, Y, X) float16.

        Raises:
            FmctError: naming the scan, when its volume is missing or broken. Nothing is ever put in its place.
        """
        scan_id = self.scan_ids[index]
        voxels = self.cache.read(scan_id)
        return {
            "hu": torch.from_numpy(voxels).reshape(-1, *voxels.shape[-3:]),
            "index": index,
            "scan_id": scan_id,
            "target": torch.from_numpy(self.targets[index]),
        }


def with_shares(
    columns: Sequence[pd.Series[float]], frame: pd.DataFrame, labels: Sequence[str], source: str
) -> list[pd.Series[float]]:
    """Replace targets by shares of readers where the manifest has them.

    Args:
        columns: one per label, 1, 0 or NaN.
        frame: rows of a manifest, as `columns`.
        labels: their names.
        source: the manifest, for messages.

    Raises:
        UsageError: when no label has shares, or one isn't within 0 and 1.
    """
    soft = [label for label in labels if SOFT_PREFIX + label in frame]
    if not soft:
        raise UsageError(
            f"the manifest has no {SOFT_PREFIX}NAME column for {', '.join(labels)}",
            source,
            "leave data.soft_labels out, or add shares: `fmct label --source cq500 --vote mean`",
        )
    scan_ids = frame["scan_id"].tolist()
    shared = {label: shares(frame[SOFT_PREFIX + label], SOFT_PREFIX + label, source, scan_ids) for label in soft}
    return [
        column if label not in shared else shared[label].fillna(column.astype("float64")).astype("float32")
        for label, column in zip(labels, columns, strict=True)
    ]
