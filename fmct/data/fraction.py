"""A share of the patients to train on: the same ones for the same seed, smaller shares within larger ones."""

from __future__ import annotations

import hashlib

import pandas as pd


def share_of_patients(frame: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Keep all scans of a share of the patients, whatever the order of the rows.

    The patients of each site are put in the order of a hash of the seed and their number, and those of all sites are
    merged so that the sites stay in proportion; a share is the beginning of this order. So a smaller share is part of
    a larger one, and every site gives its share to within one patient. A patient of several sites belongs to that of
    the scan whose scan_id comes first.

    Args:
        frame: rows of a manifest.
        fraction: share of the patients, in (0, 1]; at least one patient is kept.
        seed: decides who.

    Returns:
        The rows of the patients who were drawn, in their order.
    """
    if fraction >= 1:
        return frame
    patients = frame.sort_values("scan_id").drop_duplicates("patient_id")[["patient_id", "site"]]
    patients["rank"] = [rank_of(name, seed) for name in patients["patient_id"]]
    patients = patients.sort_values("rank")
    of_site = patients.groupby("site")["rank"]
    patients["place"] = (of_site.cumcount() + 0.5) / of_site.transform("size")
    patients = patients.sort_values(["place", "rank"])
    kept = patients["patient_id"].head(max(1, round(fraction * len(patients))))
    return frame[frame["patient_id"].isin(set(kept))]


def rank_of(name: str, seed: int) -> str:
    """Return text by which names are put in an order that a seed decides."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
