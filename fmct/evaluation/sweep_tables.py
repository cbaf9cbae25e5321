"""A sweep's results as text: AUROCs of every run, or transfer matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from fmct.evaluation.curve_table import blocks, cell, matrix
from fmct.evaluation.transfer import Transfer
from fmct.evaluation.wording import share


def results_text(table: pd.DataFrame) -> str:
    """Lay AUROCs out, a row per run and evaluation; "" without any."""
    done = table[table["status"] != "failed"]
    if done.empty:
        return ""
    wide = done.pivot_table(
        index=["run", "evaluation"], columns="label", values="auroc", sort=False, dropna=False, observed=True
    )
    rows = [
        [*map(str, place), *(share(None if pd.isna(value) else float(value)) for value in values)]
        for place, values in zip(wide.index, wide.to_numpy(), strict=True)
    ]
    return f"AUROC\n{blocks(['run', 'evaluation', *map(str, wide.columns)], rows, fixed=2)}"


def transfer_text(transfer: Transfer) -> str:
    """Lay matrices out, trained on by tested on: the mean over labels first, then each label."""
    groups: dict[str, dict[str, dict[str, str]]] = {}
    for one in transfer.mean:
        title = f"mean of {', '.join(one.labels)}{others_of(one.others)}"
        groups.setdefault(title, {}).setdefault(one.train_site, {})[one.test_site] = cell(one.auroc)
    for each in transfer.cells:
        title = f"{each.label}{others_of(each.others)}"
        groups.setdefault(title, {}).setdefault(each.train_site, {})[each.test_site] = cell(each.auroc_over_seeds)
    texts = []
    for title, rows in groups.items():
        columns = list(dict.fromkeys(name for cells in rows.values() for name in cells))
        texts.append(f"AUROC (95 % CI), {title}\n{matrix('trained on', columns, rows)}")
    return "\n\n".join(texts)


def others_of(values: Mapping[str, Any]) -> str:
    """Write what else tells runs apart: `, task.mode linear`."""
    return "".join(f", {key} {value}" for key, value in values.items())
