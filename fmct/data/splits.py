"""Assigning patients to splits: by patient, alike in site and labels, the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fmct.console.errors import UsageError
from fmct.data.manifest import label_columns


def hold_out_sites(manifest: pd.DataFrame, sites: Sequence[str]) -> pd.DataFrame:
    """Put every scan of some sites into `test`: hospitals that training never sees.

    Raises:
        UsageError: when a site isn't there, or one of its scans has another split already.
    """
    held_out = manifest["site"].isin(sites)
    missing = sorted(set(sites) - set(manifest["site"]))
    source = manifest.attrs.get("source", "the manifest")
    if missing:
        there = ", ".join(sorted(set(manifest["site"])))
        raise UsageError(f"no scan comes from {missing[0]}", source, f"the sites are {there}")
    taken = manifest[held_out & ~manifest["split"].isin(["", "test"])]
    if len(taken):
        raise UsageError(
            f"{len(taken)} scans of the sites to hold out are in {taken['split'].iloc[0]} already",
            source,
            "clear their split column first",
        )
    return manifest.assign(split=manifest["split"].where(~held_out, "test"))


def assign_splits(manifest: pd.DataFrame, fractions: Mapping[str, float], seed: int) -> pd.DataFrame:
    """Give every patient without a split one.

    Patients are ordered by stratum (site, and which labels any of their scans has), at random within each, and each
    takes the split that is furthest behind its share. So every stratum is divided in the proportions asked for, as
    nearly as whole patients allow. Scans that have a split keep it, and their patient's other scans join it.

    Args:
        manifest: as `read_manifest` returns it.
        fractions: share, for each split, of the patients that have none yet; must add up to 1.
        seed: of the order within strata.

    Returns:
        The manifest with its `split` column filled.
    """
    labels = label_columns(manifest)
    by_patient = manifest.groupby("patient_id", sort=True)
    positive = by_patient[labels].max().eq(1).fillna(False)
    patients = by_patient[["site", "split"]].agg({"site": "first", "split": "max"}).join(positive)
    order = np.random.default_rng(seed).permutation(len(patients))
    free = patients.iloc[order]
    free = free[free["split"] == ""].sort_values(["site", *labels], kind="stable")
    counts = dict.fromkeys(fractions, 0)
    chosen = {}
    for patient in free.index:
        total = sum(counts.values()) + 1
        split = max(fractions, key=lambda name: fractions[name] * total - counts[name])
        counts[split] += 1
        chosen[patient] = split
    given = patients["split"].where(patients["split"] != "", pd.Series(chosen).reindex(patients.index))
    return manifest.assign(split=manifest["patient_id"].map(given).astype("str"))
