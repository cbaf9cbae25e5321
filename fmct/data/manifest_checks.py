"""What must hold in a manifest, each rule a few vectorized lines: 361,663 rows are checked in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fmct.console.errors import UsageError, nearest

SPLITS = ("pretrain", "train", "val", "test")
FORMATS = ("dicom", "nifti")


def check_manifest(frame: pd.DataFrame, source: Path, root: Path, label_columns: Sequence[str]) -> None:
    """Check all rules; paths are made relative to the root in place where they were absolute within it.

    Args:
        frame: the manifest, typed.
        source: its file, for messages.
        root: the folder that paths are relative to.
        label_columns: the `label:NAME` columns.

    Raises:
        UsageError: on the first rule that is broken.
    """
    check_identifiers(frame, source)
    check_choices(frame, source, "format", FORMATS)
    check_choices(frame, source, "split", (*SPLITS, ""))
    check_paths(frame, source, root)
    if any(not name.split(":", 1)[1].strip() for name in label_columns):
        raise UsageError("a label column has no name after 'label:'", source, "name it, e.g. label:ICH")
    frame.attrs["source"] = str(source)
    check_splits(frame)


def check_identifiers(frame: pd.DataFrame, source: Path) -> None:
    """Refuse empty identifiers and paths, and a scan_id that comes twice."""
    for name in ("scan_id", "path", "patient_id"):
        empty = frame[name].str.strip() == ""
        if empty.any():
            raise UsageError(f"{name} is empty", where(frame, source, empty), "fill it in, or remove the row")
    twice = frame["scan_id"].duplicated()
    if twice.any():
        raise UsageError(
            "the same scan_id comes twice", where(frame, source, twice), "give each scan its own, or remove one row"
        )


def check_choices(frame: pd.DataFrame, source: Path, column: str, choices: Sequence[str]) -> None:
    """Refuse values of a column that aren't among its choices, naming the nearest."""
    wrong = ~frame[column].isin(choices)
    if wrong.any():
        value = str(frame[column][wrong].iloc[0])
        guess = nearest(value.lower(), [choice for choice in choices if choice])
        listed = ", ".join(choice or "empty" for choice in choices)
        raise UsageError(
            f"{column} is {value!r}; it must be one of {listed}",
            where(frame, source, wrong),
            f"did you mean {guess!r}?" if guess else "mend the value",
        )


def check_paths(frame: pd.DataFrame, source: Path, root: Path) -> None:
    """Refuse paths out of the root; absolute ones within it become relative."""
    absolute = frame["path"].str.startswith("/")
    if absolute.any():
        resolved = str(root.resolve())
        inside = absolute & frame["path"].str.startswith(resolved.rstrip("/") + "/")
        refuse_paths(frame, source, root, absolute & ~inside)
        frame.loc[inside, "path"] = frame.loc[inside, "path"].str.removeprefix(resolved).str.lstrip("/")
    refuse_paths(frame, source, root, frame["path"].str.contains(r"(?:^|/)\.\.(?:/|$)", regex=True))


def refuse_paths(frame: pd.DataFrame, source: Path, root: Path, outside: pd.Series[bool]) -> None:
    """Raise when any path is marked as outside the root."""
    if outside.any():
        raise UsageError(
            f"the path {frame['path'][outside].iloc[0]!r} leads out of the root {root}",
            where(frame, source, outside),
            "pass the folder that holds the scans as --root, and keep the paths within it",
        )


class LeakError(UsageError):
    """The same patient, study, series or scan in two splits."""


def check_splits(*frames: pd.DataFrame) -> None:
    """Check that no patient, study, series or scan is in two splits, within one manifest or across several.

    Args:
        frames: manifests; an empty split belongs to none.

    Raises:
        LeakError: naming one that is, and two of the scans.
    """
    found = shared_between_splits(*frames)
    if found.empty:
        return
    kind = str(found["kind"].iloc[0])
    own = found[found["kind"] == kind]
    leak = own.iloc[0]
    raise LeakError(
        f"{kind} {leak['id']} is in two splits: {leak['split_a']} (scan {leak['scan_a']}) and {leak['split_b']} "
        f"(scan {leak['scan_b']}); {own['id'].nunique()} such {PLURALS[kind]}",
        " and ".join(dict.fromkeys([leak["source_a"], leak["source_b"]])),
        FIXES[kind],
    )


IDENTITIES = {"patient": "patient_id", "study": "study_id", "series": "series_id", "scan": "scan_id"}
PLURALS = {"patient": "patients", "study": "studies", "series": "series", "scan": "scans"}
FIXES = {
    "patient": "put all scans of a patient into one split: `fmct split` does",
    "study": "put all scans of a study into one split, or empty study_id where the study's number is wrong",
    "series": "put all scans of a series into one split",
    "scan": "leave the scan out of one of the splits",
}
LEAK_COLUMNS = ["kind", "id", "split_a", "scan_a", "source_a", "split_b", "scan_b", "source_b"]


def shared_between_splits(*frames: pd.DataFrame) -> pd.DataFrame:
    """Find the patients, studies, series and scans that are in two splits.

    Args:
        frames: manifests; an empty split, and an empty identifier, belong to none.

    Returns:
        `LEAK_COLUMNS`: one row for each identifier and pair of splits, with the first scan on each side and its file.
    """
    rows = pd.concat(
        [
            frame.loc[frame["split"] != "", [name for name in (*IDENTITIES.values(), "split") if name in frame]].assign(
                source=str(frame.attrs.get("source", "the manifest"))
            )
            for frame in frames
        ],
        ignore_index=True,
    )
    parts = []
    for kind, column in IDENTITIES.items():
        if column not in rows:
            continue
        own = rows[rows[column].fillna("") != ""].drop_duplicates([column, "split"])
        own = own[own[column].duplicated(keep=False)]
        sides = pd.DataFrame(
            {"id": own[column], "split": own["split"], "scan": own["scan_id"], "source": own["source"], "n": own.index}
        )
        pairs = sides.merge(sides, on="id", suffixes=("_a", "_b"))
        pairs = pairs[pairs["n_a"] < pairs["n_b"]]
        parts.append(pairs.assign(kind=kind)[LEAK_COLUMNS])
    return pd.concat(parts, ignore_index=True)


def where(frame: pd.DataFrame, source: Path, rows: pd.Series[bool]) -> str:
    """Name the file, the line and the scan of the first marked row, and say how many there are."""
    row = int(rows.to_numpy().argmax())
    more = f", and {int(rows.sum()) - 1} more rows" if rows.sum() > 1 else ""
    return f"{source}, line {row + 2} (scan {frame['scan_id'].iloc[row]}){more}"
