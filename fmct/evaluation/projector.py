"""Embeddings for TensorBoard's projector, each scan with its site and labels to color it by.

N scans, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from fmct.data.manifest import LABEL_PREFIX, label_names, read_manifest

MANIFESTS = {".csv", ".parquet"}
BESIDE = ("site", "manufacturer", "split")


def known_of(scan_ids: Sequence[str], inputs: Sequence[Path]) -> pd.DataFrame:
    """Return what manifests among the inputs know of the scans: (N,) rows of text, empty where nothing is known."""
    frames = [read_manifest(path) for path in inputs if path.is_file() and path.suffix in MANIFESTS]
    known = pd.DataFrame({"scan_id": list(scan_ids)})
    for frame in frames:
        labels = {LABEL_PREFIX + name: name for name in label_names(frame)}
        columns = ["scan_id", *(name for name in BESIDE if name in frame), *labels]
        known = known.merge(frame[columns].rename(columns=labels), on="scan_id", how="left")
    return known.astype("string").fillna("")


def write_projector(features_ND: NDArray[np.float32], known: pd.DataFrame, folder: Path, name: str) -> None:
    """Write the projector's files into a folder of events, in place of earlier ones of the same name.

    Args:
        features_ND: the embeddings.
        known: N rows of what is known of the scans.
        folder: of a run's events.
        name: of the embeddings, in TensorBoard's list.
    """
    for config in folder.glob("projector_config.pbtxt"):
        config.unlink()
    with SummaryWriter(str(folder)) as writer:
        writer.add_embedding(
            features_ND, metadata=known.to_numpy().tolist(), metadata_header=list(known.columns), tag=name
        )
