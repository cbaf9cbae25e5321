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


def check_splits(*frames: pd.DataFrame) -> None:
    """Check that no patient is in two splits, within one manifest or across several.

    Args:
        frames: manifests with `patient_id`, `scan_id` and `split`; an empty split belongs to none.

    Raises:
        UsageError: naming one such patient and two of the scans.
    """
    parts = [
        frame.loc[frame["split"] != "", ["patient_id", "split", "scan_id"]].assign(
            source=str(frame.attrs.get("source", "the manifest"))
        )
        for frame in frames
    ]
    first = pd.concat(parts, ignore_index=True).drop_duplicates(["patient_id", "split"])
    torn = first["patient_id"].duplicated(keep=False)
    if not torn.any():
        return
    patient = first.loc[torn, "patient_id"].iloc[0]
    one, other = first[first["patient_id"] == patient].to_dict("records")[:2]
    raise UsageError(
        f"patient {patient} is in two splits: {one['split']} (scan {one['scan_id']}) and {other['split']} "
        f"(scan {other['scan_id']}); {first.loc[torn, 'patient_id'].nunique()} such patients",
        " and ".join(dict.fromkeys([one["source"], other["source"]])),
        "put all scans of a patient into one split: `fmct split` does",
    )


def where(frame: pd.DataFrame, source: Path, rows: pd.Series[bool]) -> str:
    """Name the file, the line and the scan of the first marked row, and say how many there are."""
    row = int(rows.to_numpy().argmax())
    more = f", and {int(rows.sum()) - 1} more rows" if rows.sum() > 1 else ""
    return f"{source}, line {row + 2} (scan {frame['scan_id'].iloc[row]}){more}"
