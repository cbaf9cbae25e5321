"""Assigning patients to splits: by patient, alike in site and labels, the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

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


def people(manifest: pd.DataFrame) -> NDArray[np.int64]:
    """Return a number for each row, equal for scans that belong together: of one patient, or of one study.

    A study is one person's; where its scans have two patient numbers, one of them is mistyped.
    """
    patients, _ = pd.factorize(manifest["patient_id"])
    studies, names = pd.factorize(manifest["study_id"].where(manifest["study_id"] != ""))
    in_study = studies >= 0
    size = int(patients.max()) + 1 + len(names)
    links = (np.ones(int(in_study.sum())), (patients[in_study], studies[in_study] + int(patients.max()) + 1))
    _, person = sparse.csgraph.connected_components(sparse.coo_array(links, shape=(size, size)), directed=False)
    return np.asarray(person[patients], dtype=np.int64)


def assign_splits(manifest: pd.DataFrame, fractions: Mapping[str, float], seed: int) -> pd.DataFrame:
    """Give every scan without a split one, the same for all scans of a person (see `people`).

    People are taken in turn, those with the rarest traits first and at random among equals, and each goes where its
    traits are furthest behind their shares (minimization: Pocock and Simon 1975, Biometrics 31:103; with the greatest
    deficit winning). Traits are the site, each label's known values, and each positive label at its site; a rare one
    weighs more. So each is divided in the proportions asked for, as nearly as whole people allow.

    Args:
        manifest: as `read_manifest` returns it.
        fractions: share, for each split, of the people that have none yet; must add up to 1.
        seed: of the order.

    Returns:
        The manifest with its `split` column filled. Scans that have a split keep it, and their person's others join.

    Raises:
        UsageError: when scans of one person have different splits already.
    """
    person = people(manifest)
    given = manifest["split"].where(manifest["split"] != "").groupby(person).agg(["first", "nunique"])
    if (given["nunique"] > 1).any():
        torn = manifest[(person == given.index[given["nunique"] > 1][0]) & (manifest["split"] != "").to_numpy()]
        one, other = torn.drop_duplicates("split").head(2).to_dict("records")
        raise UsageError(
            f"scans {one['scan_id']} ({one['split']}) and {other['scan_id']} ({other['split']}) belong together: their "
            "patients share a study",
            str(manifest.attrs.get("source", "the manifest")),
            "put them into one split, or empty study_id where the study's number is wrong",
        )
    free = given.index[given["first"].isna()].to_numpy()
    traits = traits_of(manifest, person)[free]
    order = np.random.default_rng(seed).permutation(len(free))
    chosen = minimized(traits, np.array(list(fractions.values())), order)
    splits = given["first"].to_numpy(dtype=object)
    splits[free] = np.array(list(fractions), dtype=object)[chosen]
    return manifest.assign(split=pd.Series(splits[person], manifest.index).astype("str"))


def traits_of(manifest: pd.DataFrame, person: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return what is to be shared out evenly, (people, traits): all, sites, labels' values, positives at a site."""
    count = int(person.max()) + 1
    columns = [np.ones(count, bool)]
    sites = manifest["site"].groupby(person).first()
    at_site = [(sites == site).to_numpy() for site in sorted(set(sites))]
    columns += at_site
    for label in label_columns(manifest):
        greatest = manifest[label].groupby(person).max()
        positive, negative = (greatest.eq(value).fillna(False).to_numpy(dtype=bool) for value in (1, 0))
        columns += [positive, negative, *(positive & here for here in at_site)]
    return np.stack(columns, axis=1)


def minimized(traits: NDArray[np.bool_], shares: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Deal people out so that every trait is divided in the same shares.

    Args:
        traits: (N, T) who has what.
        shares: (S,) of the splits.
        order: (N,) of people who are equally rare.

    Returns:
        (N,) each person's split.
    """
    totals = traits.sum(axis=0)
    weights = 1.0 / np.maximum(totals, 1)
    rarest = np.where(traits, totals, len(traits) + 1).min(axis=1) if len(traits) else np.zeros(0)
    counts = np.zeros((len(totals), len(shares)))
    chosen = np.empty(len(traits), np.int64)
    for index in order[np.argsort(rarest[order], kind="stable")]:
        own = np.flatnonzero(traits[index])
        due = (counts[own].sum(axis=1, keepdims=True) + 1) * shares
        split = int(((due - counts[own]) * weights[own, None]).sum(axis=0).argmax())
        counts[own, split] += 1
        chosen[index] = split
    return chosen


def studies_of_several(manifest: pd.DataFrame) -> pd.Series[int]:
    """Return how many patient numbers each study has that has more than one."""
    known = manifest[manifest["study_id"] != ""]
    patients = known.groupby("study_id")["patient_id"].nunique()
    return patients[patients > 1]
