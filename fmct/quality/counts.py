"""The waterfall: how many series were found, what each reason took away, and how many are cached; it adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class Step:
    """One line of the waterfall.

    Attributes:
        title: what is counted.
        count: how many are left, or how many go.
        left: how many are left after it.
        code: the reject code, "" for a total and for what has none.
        is_loss: whether the count goes off.
    """

    title: str
    count: int
    left: int
    code: str = ""
    is_loss: bool = False


@dataclass(frozen=True)
class Waterfall:
    """From what was found to what is cached.

    Attributes:
        steps: totals and losses, in order; each total is the one before without the losses between.
        files: single files that the index refused, by code: they belong to no series, so they aren't in the steps.
        notes: what the steps don't show, in sentences.
    """

    steps: list[Step]
    files: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def waterfall(
    cached: Iterable[str],
    rejects: pd.DataFrame,
    manifest: Iterable[str] | None = None,
    index_rejects: pd.DataFrame | None = None,
) -> Waterfall:
    """Count from the tables of each stage.

    Args:
        cached: scan_ids of the cache.
        rejects: the cache's own, with code and scan_id.
        manifest: scan_ids of the manifest, None where none was given.
        index_rejects: the rejects beside the manifest, with code and scan_id; None where there is no such file.
    """
    in_cache = set(cached)
    refused = {str(one): str(code) for one, code in zip(rejects["scan_id"], rejects["code"], strict=True)}
    refused = {one: code for one, code in refused.items() if one not in in_cache}
    steps: list[Step] = []
    if manifest is None:
        notes = ["No manifest was given, so what the index found and left out isn't counted (`--manifest`)."]
        steps.append(Step("tried by preprocessing", len(in_cache) + len(refused), len(in_cache) + len(refused)))
        take(steps, Counter(refused.values()))
        steps.append(Step("in the cache", len(in_cache), len(in_cache)))
        return Waterfall(steps, {}, notes)
    listed = set(manifest)
    notes, files = [], {}
    if index_rejects is None:
        notes.append("No rejects.csv is known to be the manifest's, so what the index left out isn't counted.")
    else:
        is_series = index_rejects["scan_id"] != ""
        files = dict(Counter(index_rejects["code"][~is_series].astype(str)).most_common())
        whole = index_rejects[is_series & ~index_rejects["scan_id"].isin(listed)].drop_duplicates("scan_id")
        lost = Counter(whole["code"].astype(str))
        parts = int(is_series.sum()) - len(whole)
        if parts:
            notes.append(
                f"{parts:,} rejects are parts of series that are counted already (a scout among the slices, say)."
            )
        found = len(listed) + lost.total()
        steps.append(Step("series and volumes found", found, found))
        take(steps, lost)
    steps.append(Step("in the manifest", len(listed), len(listed)))
    take(steps, Counter(code for one, code in refused.items() if one in listed))
    waiting = len(listed - in_cache - set(refused))
    if waiting:
        steps.append(Step("not preprocessed yet", waiting, steps[-1].left - waiting, is_loss=True))
    cached_of_manifest = len(listed & in_cache)
    steps.append(Step("in the cache", cached_of_manifest, cached_of_manifest))
    others = len(in_cache - listed)
    if others:
        notes.append(f"The cache holds {others:,} more that this manifest doesn't list.")
    others_refused = len(set(refused) - listed)
    if others_refused:
        notes.append(f"Preprocessing rejected {others_refused:,} more that this manifest doesn't list.")
    return Waterfall(steps, files, notes)


def take(steps: list[Step], lost: Counter[str]) -> None:
    """Append a loss for each code, the commonest first."""
    for code, count in sorted(lost.items(), key=lambda one: (-one[1], one[0])):
        steps.append(Step("", count, steps[-1].left - count, code, is_loss=True))
