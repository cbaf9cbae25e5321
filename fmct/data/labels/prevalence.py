"""How common each label is, by scan and by patient."""

from __future__ import annotations

import pandas as pd

from fmct.data.manifest import LABEL_PREFIX, label_columns

Counts = dict[str, int]
STATES = ("positive", "negative", "unknown")


def prevalence(manifest: pd.DataFrame) -> dict[str, dict[str, Counts]]:
    """Count each label's values.

    Args:
        manifest: with `patient_id` and `label:NAME` columns.

    Returns:
        For each name, under "scans" and "patients", how many are positive, negative and unknown. A patient is positive
        with any positive scan, negative with a negative one and no positive one.
    """
    columns = label_columns(manifest)
    by_patient = manifest.groupby("patient_id", sort=False)[columns].max()
    return {
        column.removeprefix(LABEL_PREFIX): {"scans": counted(manifest[column]), "patients": counted(by_patient[column])}
        for column in columns
    }


def counted(values: pd.Series[int]) -> Counts:
    """Count ones, zeros and unknowns."""
    return dict(
        zip(STATES, (int((values == 1).sum()), int((values == 0).sum()), int(values.isna().sum())), strict=True)
    )


def prevalence_table(found: dict[str, dict[str, Counts]]) -> str:
    """Lay out what `prevalence` returns: a line for each label; the share is that of the known."""
    width = max(20, *(len(name) + 2 for name in found)) if found else 20
    head = "".join(f"{state:>10}" for state in STATES) + f"{'share':>8}"
    lines = [f"{'':<{width}}{'scans':>{len(head)}}{'patients':>{len(head)}}", f"{'label':<{width}}{head}{head}"]
    for name, parts in found.items():
        line = f"{name:<{width}}"
        for part in ("scans", "patients"):
            counts = parts[part]
            known = counts["positive"] + counts["negative"]
            share = f"{counts['positive'] / known:.1%}" if known else "n/a"
            line += "".join(f"{counts[state]:>10}" for state in STATES) + f"{share:>8}"
        lines.append(line)
    return "\n".join(lines)
