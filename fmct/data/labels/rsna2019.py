"""RSNA 2019 hemorrhage detection: labels of single slices, turned into those of series by the greatest value.

`stage_2_train.csv` has a row `ID_xxxxxxxxx_epidural,0` for each image and kind. Which series an image belongs to is in
its DICOM header alone; the image's name is its SOPInstanceUID, and its file's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fmct.console.errors import UsageError, nearest
from fmct.data.dicom import SliceHeader
from fmct.data.labels.columns import read_columns
from fmct.data.labels.source import SourceLabels
from fmct.data.manifest import LABEL_PREFIX
from fmct.data.privacy import uid_hash

LABELS = {
    "any": "ICH",
    "epidural": "EDH",
    "intraparenchymal": "IPH",
    "intraventricular": "IVH",
    "subarachnoid": "SAH",
    "subdural": "SDH",
}
DAMAGED = "ID_6431af929"
"""The one image of the data set whose pixels are cut short, so that no volume can have it."""
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class SliceLabels:
    """The table's content.

    Attributes:
        hashes: (N,) uint64 `uid_hash` of each image's name, in ascending order.
        values: (N, 6) int8 in the order of `LABELS`: 1, 0, or `UNKNOWN` where the image has no such row.
        repeated: how many rows said the same again.
        damaged: whether rows of the damaged image were passed over.
    """

    hashes: NDArray[np.uint64]
    values: NDArray[np.int8]
    repeated: int
    damaged: bool

    def rows_of(self, hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return the row of each image, -1 where the table doesn't have it."""
        places = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[places] == hashes, places, -1)


def read_slice_labels(path: Path) -> SliceLabels:
    """Read `stage_2_train.csv`; an unnamed index column in front, as pandas writes it, doesn't matter.

    Raises:
        UsageError: naming the line, when an ID isn't `ID_..._kind`, a label isn't 1 or 0 (a sample submission has 0.5),
            or rows of one ID contradict each other.
    """
    table = read_columns(path, ["ID", "Label"])
    if not table.num_rows:
        raise UsageError("the table has no rows", path, "give stage_2_train.csv as --table")
    labels = table.column("Label").combine_chunks()
    # "1", "1.0" and "1e0" are one; anything else than 1 and 0 becomes null
    known = pc.index_in(pc.utf8_trim_whitespace(labels), pa.array(["0", "1", "0.0", "1.0"]))
    refuse(path, pc.is_null(known), labels)
    value = (known.to_numpy(zero_copy_only=False) % 2).astype(np.int8)
    ids = pc.utf8_trim_whitespace(table.column("ID").combine_chunks())
    kind, images = np.full(len(ids), -1, np.int8), pc.utf8_slice_codeunits(ids, 0, 0)
    for number, name in enumerate(LABELS):
        ends = pc.ends_with(ids, f"_{name}")
        kind[ends.to_numpy(zero_copy_only=False)] = number
        images = pc.if_else(ends, pc.utf8_slice_codeunits(ids, 0, -len(name) - 1), images)
    wrong = (kind < 0) | ~pc.starts_with(images, "ID_").to_numpy(zero_copy_only=False)
    if wrong.any():
        line = int(wrong.argmax()) + 2
        raise UsageError("the ID isn't ID_xxxxxxxxx_kind", f"{path}, line {line}", "give stage_2_train.csv as --table")
    damaged = pc.equal(images, DAMAGED).to_numpy(zero_copy_only=False)
    encoded = images.dictionary_encode()
    hashes = np.array([int(uid_hash(name), 16) for name in encoded.dictionary.to_pylist()], np.uint64)
    rows = np.argsort(hashes).argsort()[encoded.indices.to_numpy(zero_copy_only=False)]
    values = np.full((len(hashes), len(LABELS)), UNKNOWN, np.int8)
    values[rows, kind] = value
    apart = values[rows, kind] != value
    if apart.any():
        where = f"{path}, line {int(apart.argmax()) + 2}"
        raise UsageError("the rows of one ID have different labels", where, "keep the right one")
    repeated = len(ids) - int((values != UNKNOWN).sum())
    values[rows[damaged]] = UNKNOWN
    return SliceLabels(np.sort(hashes), values, repeated, bool(damaged.any()))


def refuse(path: Path, wrong: Any, labels: Any) -> None:
    """Raise where a label is neither 1 nor 0."""
    count = pc.sum(wrong).as_py()
    if not count:
        return
    row = pc.index(wrong, True).as_py()
    sample = labels[row].as_py().strip() == "0.5"
    raise UsageError(
        "Label is 0.5: this is a sample submission, which has no labels" if sample else "Label is neither 1 nor 0",
        f"{path}, line {row + 2}, and {count - 1} more rows",
        "give stage_2_train.csv as --table" if sample else "mend the rows",
    )


def labels_of_rsna2019(
    manifest: pd.DataFrame, slices: SliceLabels, headers: Iterable[SliceHeader], columns: Sequence[str] = ()
) -> SourceLabels:
    """Turn labels of slices into labels of a manifest's series.

    A series has a finding when one of its slices has it. That it hasn't is known only when every slice is labeled:
    with a slice that has no row, or that is the data set's damaged one, the series' negatives are unknown.

    Args:
        manifest: as `read_manifest` returns it; rows of one series get the same labels.
        slices: the table.
        headers: of the slices on disk; those of other series than the manifest's don't matter.
        columns: names of labels (ICH, EDH, ...); empty: all.

    Raises:
        UsageError: when a slice's header and its file's name are two labeled images, or no slice is labeled.
    """
    names = chosen_names(columns)
    known_series = [series for series in dict.fromkeys(manifest["series_id"]) if series]
    codes = {series: code for code, series in enumerate(known_series)}
    counts: Counter[str] = Counter()
    series, rows = joined(slices, headers, codes, counts)
    labeled = rows >= 0
    if not labeled.any():
        raise UsageError(
            f"none of the {len(rows)} slices of the manifest's series is in the table",
            str(manifest.attrs.get("source", "the manifest")),
            "check --table, and that --root is the folder that the manifest's paths are relative to",
        )
    expected = manifest.groupby("series_id")["n_slices"].sum().reindex(known_series).fillna(0).to_numpy(dtype=int)
    values = np.where(labeled[:, None], slices.values[rows], UNKNOWN)
    found = greatest(series, values, expected, counts)
    counts["slices without a label row"] += int((~labeled).sum())
    counts["labeled images that aren't among the scans on disk"] = len(slices.hashes) - len(np.unique(rows[labeled]))
    counts["rows that were there twice, with the same label"] = slices.repeated
    counts[f"slices passed over because their pixels are known to be cut short ({DAMAGED})"] = int(
        slices.damaged and bool((slices.hashes[rows[labeled]] == np.uint64(int(uid_hash(DAMAGED), 16))).any())
    )
    counts["images whose `any` contradicts their kinds, kept as they are"] = contradictory(slices.values)
    own = manifest["series_id"].map(codes).fillna(len(codes)).astype(int).to_numpy()
    counts["scans without slices on disk (NIfTI, or files that are gone)"] = int((~np.isin(own, series)).sum())
    picks = [list(LABELS.values()).index(name) for name in names]
    frame = pd.DataFrame(found[own][:, picks], manifest.index, [LABEL_PREFIX + name for name in names])
    return SourceLabels(frame.astype("Int8"), counts)


def chosen_names(names: Sequence[str]) -> list[str]:
    """Return the labels to make: those named, or all.

    Raises:
        UsageError: when there is no such label.
    """
    known = list(LABELS.values())
    for name in names:
        if name not in known:
            guess = nearest(name, known)
            fix = f"did you mean {guess}?" if guess else f"use {', '.join(known)}"
            raise UsageError(f"no label {name}", "--columns", fix)
    return list(names) or known


def greatest(
    series: NDArray[np.intp], values: NDArray[np.int8], expected: NDArray[np.int64], counts: Counter[str]
) -> NDArray[np.float64]:
    """Return the greatest value of each series where it is known.

    Args:
        series: (N,) code of each slice's series, from 0.
        values: (N, 6) 1, 0 or `UNKNOWN` of each slice.
        expected: (S,) how many slices each series had when it was indexed.
        counts: gets what was incomplete.

    Returns:
        (S + 1, 6) 1, 0 or NaN; the last row stands for scans without a series. A 0 needs all slices, and their labels.
    """
    count = len(expected)
    most = np.full((count + 1, values.shape[1]), UNKNOWN, np.int8)
    np.maximum.at(most, series, values)
    unlabeled = np.zeros(most.shape, bool)
    np.logical_or.at(unlabeled, series, values == UNKNOWN)
    on_disk = np.bincount(series, minlength=count)
    gone = np.append((on_disk < expected) & (on_disk > 0), False)
    counts["series with slices not or not fully labeled, whose negatives are unknown"] = int(
        unlabeled.any(axis=1).sum()
    )
    counts["series with slices that can't be read any more, whose negatives are unknown"] = int(gone.sum())
    is_zero = (most == 0) & ~unlabeled & ~gone[:, None]
    return np.where(most == 1, 1.0, np.where(is_zero, 0.0, np.nan))


def joined(
    slices: SliceLabels, headers: Iterable[SliceHeader], codes: dict[str, int], counts: Counter[str]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the series' code and the table's row (-1: none) of each slice of the manifest's series."""
    series: list[int] = []
    by_header: list[int] = []
    by_name: list[int] = []
    otherwise_named: dict[int, Path] = {}
    for header in headers:
        counts["slices read"] += 1
        if header.series_id not in codes:
            counts["slices of series that the manifest doesn't have"] += 1
            continue
        series.append(codes[header.series_id])
        by_header.append(int(header.sop_id or "0", 16))
        by_name.append(int(uid_hash(header.path.stem), 16))
        if by_header[-1] != by_name[-1]:
            otherwise_named[len(series) - 1] = header.path
    first = slices.rows_of(np.array(by_header, np.uint64))
    second = slices.rows_of(np.array(by_name, np.uint64))
    apart = (first >= 0) & (second >= 0) & (first != second)
    if apart.any():
        raise UsageError(
            f"the file's header is of another labeled image than its name; {int(apart.sum())} such files",
            otherwise_named[int(apart.argmax())],
            "give the file its name back, or remove it",
        )
    counts["slices found by their file's name alone"] = int(((first < 0) & (second >= 0)).sum())
    return np.array(series, np.intp), np.where(first >= 0, first, second)


def contradictory(values: NDArray[np.int8]) -> int:
    """Count the images that have a kind of bleed without a bleed, or a bleed without a kind."""
    complete = (values != UNKNOWN).all(axis=1)
    return int((complete & ((values[:, 0] == 1) != (values[:, 1:] == 1).any(axis=1))).sum())
