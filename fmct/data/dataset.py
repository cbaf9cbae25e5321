"""Scans of a manifest, read from the cache: voxels and known labels, nothing decided yet.

B scans of a batch, L labels; C, Z, Y, X channels and voxels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from fmct.console.errors import FmctError, UsageError, nearest
from fmct.data.labels.source import SOFT_PREFIX, shares
from fmct.data.manifest import LABEL_PREFIX, label_names
from fmct.data.quarantine import Unread
from fmct.data.sharding import Draw
from fmct.data.volume_file import Voxels, read_volume
from fmct.data.volumes import VolumeCache

Batch = dict[str, Any]

SECONDS_BEFORE_RETRY = 0.2


def unnoted(row: int) -> AbstractContextManager[int]:
    """Note nothing while a row is read."""
    return nullcontext(row)


class ScanDataset(Dataset[Batch]):
    """One item per row of a manifest.

    What its processes look at for each item is in arrays: a list of a hundred thousand names would slowly be copied
    into every loader process, since looking at a Python object writes to it.

    Args:
        frame: rows of a manifest.
        cache: the cache that holds their volumes.
        labels: label columns to deliver, without the prefix.
        soft: take a target from `soft:NAME` (the share of readers who saw it) where the row has it.

    Attributes:
        noted: within it a row is read; loader processes note which.

    Raises:
        UsageError: when the manifest has no such label or, with `soft`, no `soft:NAME` for any of them, or a share
            isn't within 0 and 1.
    """

    noted: Callable[[int], AbstractContextManager[int]] = staticmethod(unnoted)

    def __init__(self, frame: pd.DataFrame, cache: VolumeCache, labels: Sequence[str] = (), soft: bool = False) -> None:
        self.cache = cache
        self._know(frame, labels, soft)

    def _know(self, frame: pd.DataFrame, labels: Sequence[str], soft: bool) -> None:
        self.frame = frame.reset_index(drop=True)
        self.labels = tuple(labels)
        self.names = pa.array(self.frame["scan_id"], pa.large_string())
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

    @property
    def scan_ids(self) -> list[str]:
        """The scans' names, by row."""
        names: list[str] = self.names.to_pylist()
        return names

    def __getitem__(self, draw: int | Draw) -> Batch:
        """Return one scan.

        Args:
            draw: the row, alone or with the epoch and how often it was drawn before in it.

        Returns:
            `hu` (1, Z, Y, X) int16 or (C, Z, Y, X) float16, as the cache holds it; `draw`; `index`, its row; `scan_id`;
            and `target` (L,), 0 to 1 with NaN where unknown.

        Raises:
            FmctError: naming the file, when the volume is missing or broken at the second try too. Nothing is ever put
                in its place.
        """
        draw = draw if isinstance(draw, Draw) else Draw(int(draw))
        scan_id = self._name(draw)
        return {
            "hu": torch.from_numpy(self._read(scan_id)),
            "draw": draw,
            "index": draw.row,
            "scan_id": scan_id,
            "target": torch.from_numpy(self.targets[draw.row]),
        }

    def __getitems__(self, draws: Sequence[int | Draw]) -> Batch:
        """Return a batch, for loaders. Each volume is copied into it while it is still in the processor's cache.

        Args:
            draws: what to read.

        Returns:
            For the B scans that were read: `hu` (B, 1, Z, Y, X) int16 or (B, C, Z, Y, X) float16, `index` (B,) int64,
            `target` (B, L) float32, and the lists `scan_id` and `draws`. `unread` lists the others, as `Unread`.
        """
        read: list[Draw] = []
        unread: list[Unread] = []
        hu = torch.empty(0)
        for draw in draws:
            draw = draw if isinstance(draw, Draw) else Draw(int(draw))
            try:
                with self.noted(draw.row):
                    voxels = torch.from_numpy(self._read(self._name(draw)))
                if not read:
                    hu = empty_batch(len(draws), voxels)
                check_shape(voxels, hu[0], self._where(self._name(draw)))
            except FmctError as error:
                unread.append(Unread(self._name(draw), error.where, error.what, error.fix))
                continue
            hu[len(read)] = voxels
            read.append(draw)
        rows = [draw.row for draw in read]
        return {
            "hu": hu[: len(read)],
            "index": torch.tensor(rows, dtype=torch.int64),
            "target": torch.from_numpy(self.targets[rows]),
            "scan_id": [self._name(draw) for draw in read],
            "draws": read,
            "unread": unread,
        }

    def scan_id(self, row: int) -> str:
        """Return the name of the scan in a row."""
        name: str = self.names[row].as_py()
        return name

    def where(self, row: int) -> Path:
        """Return the file that the scan in a row is read from."""
        return self._where(self.scan_id(row))

    def _name(self, draw: Draw) -> str:
        return self.scan_id(draw.row)

    def _where(self, scan_id: str) -> Path:
        return self.cache.volume_path(scan_id)

    def _read(self, scan_id: str) -> Voxels | NDArray[np.float32]:
        path = self._where(scan_id)
        try:
            voxels = read_volume(path)
        except FmctError:  # a network file system may have been slow to answer
            time.sleep(SECONDS_BEFORE_RETRY)
            voxels = read_volume(path)
        return voxels if voxels.ndim == 4 else voxels[np.newaxis]


def empty_batch(scans: int, like: Tensor) -> Tensor:
    """Return room for volumes, (scans, *like.shape), in memory that a loader process shares with the one it feeds."""
    shape = (scans, *like.shape)
    if get_worker_info() is None:
        return torch.empty(shape, dtype=like.dtype)
    storage = torch.UntypedStorage._new_shared(scans * like.nbytes, device="cpu")  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=like.dtype).set_(storage).view(shape)


def check_shape(voxels: Tensor, other: Tensor, path: Path) -> None:
    """Check that a volume has the shape and type of another one of its batch.

    Raises:
        FmctError: when it hasn't.
    """
    if voxels.shape != other.shape or voxels.dtype != other.dtype:
        raise FmctError(
            f"the cached volume is {tuple(voxels.shape)} {voxels.dtype}, others are {tuple(other.shape)} {other.dtype}",
            path,
            "delete it, and run `fmct preprocess` again: it makes what lacks",
        )


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
