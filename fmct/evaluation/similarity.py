"""Which scans look alike to a model: the nearest neighbors of one embedding among many, by cosine similarity."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmct.console.errors import UsageError, require_file
from fmct.evaluation.knn import unit_rows

Floats = NDArray[np.floating]


def read_embeddings(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Read a table that `fmct embed` wrote.

    Returns:
        N scan_ids, and (N, D) features.

    Raises:
        UsageError: when it is missing, or no such table.
    """
    require_file(path, "the table of embeddings", "write it with `fmct embed`")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise UsageError(f"not a readable Parquet file ({error})", path, "write it anew with `fmct embed`") from error
    columns = [name for name in frame if str(name).startswith("e") and str(name)[1:].isdecimal()]
    if "scan_id" not in frame or not columns or frame.empty:
        raise UsageError("no table of embeddings: scan_id, e0000, e0001, ...", path, "write it with `fmct embed`")
    return frame["scan_id"].astype(str).tolist(), frame[columns].to_numpy(np.float32)


def nearest_scans(
    query_D: Floats, scan_ids: list[str], bank_ND: Floats, k: int, without: Collection[str] = ()
) -> list[tuple[str, float]]:
    """Return the scans most like one, the most alike first, those equally alike in the order of the bank.

    Args:
        query_D: features of the one.
        scan_ids: N names.
        bank_ND: their features.
        k: how many at most.
        without: names that don't come into question.

    Returns:
        (scan_id, cosine similarity from -1 to 1) pairs.
    """
    similarities = unit_rows(bank_ND) @ unit_rows(query_D[None])[0]
    order = np.argsort(-similarities, kind="stable")
    ranked = [(scan_ids[row], float(similarities[row])) for row in order if scan_ids[row] not in without]
    return ranked[:k]
