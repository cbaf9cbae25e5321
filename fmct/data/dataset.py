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
from fmct.data.manifest import LABEL_PREFIX, label_names
from fmct.data.volumes import VolumeCache


class ScanDataset(Dataset[dict[str, Any]]):
    """One item per row of a manifest.

    Args:
        frame: rows of a manifest.
        cache: the cache that holds their volumes.
        labels: label columns to deliver, without the prefix.

    Raises:
        UsageError: when the manifest has no such label.
    """

    def __init__(self, frame: pd.DataFrame, cache: VolumeCache, labels: Sequence[str] = ()) -> None:
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
        columns = [self.frame[LABEL_PREFIX + label].astype("float32").to_numpy() for label in labels]
        self.targets: NDArray[np.float32] = (
            np.stack(columns, 1) if columns else np.zeros((len(self.frame), 0), np.float32)
        )

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `hu` (1, Z, Y, X) int16, `index`, `scan_id` and `target` (L,) with NaN where unknown.

        Raises:
            FmctError: naming the scan, when its volume is missing or broken. Nothing is ever put in its place.
        """
        scan_id = self.scan_ids[index]
        return {
            "hu": torch.from_numpy(self.cache.read(scan_id)).unsqueeze(0),
            "index": index,
            "scan_id": scan_id,
            "target": torch.from_numpy(self.targets[index]),
        }
