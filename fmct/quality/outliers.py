"""Scans that stand out: how far each figure lies from the cache's own median, in robust standard deviations.

The modified z-score of Iglewicz and Hoaglin (1993), with their threshold: distance from the median over 1.4826 times
the median absolute deviation, which a few bad scans can't move. Nothing here says that a scan is wrong, and a cache
that is wrong throughout looks normal to itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fmct.quality.measures import MEASURES, Measure

THRESHOLD = 3.5
FEWEST_SCANS = 20
NORMAL_MAD = 1.4826
KNOWN_SHARE = 0.95
GROUP_SHARE = 0.1
UNREADABLE = "Unreadable"


@dataclass(frozen=True)
class Typical:
    """What is usual in a cache.

    Attributes:
        measure: of what.
        median: in its unit.
        spread: 1.4826 times the median absolute deviation.
        known: scans that have a value.
        low: scans that are unusually low.
        high: scans that are unusually high.
        missing: scans without a value, where nearly all others have one.
    """

    measure: Measure
    median: float
    spread: float
    known: int
    low: int = 0
    high: int = 0
    missing: int = 0

    @property
    def text(self) -> str:
        """Median and spread: "33 ± 3 HU", with more decimals where the spread would vanish."""
        scaled = self.spread * self.measure.scale
        digits = self.measure.digits + (1 if 0 < scaled < 0.5 * 10**-self.measure.digits else 0)
        number = self.measure.number
        return f"{number(self.median, digits)} ± {number(self.spread, digits)}{self.measure.unit}"


@dataclass(frozen=True)
class Outlier:
    """A scan that stands out.

    Attributes:
        scan_id: which.
        score: the largest modified z-score without its sign; infinite for an unreadable volume or a missing figure.
        reasons: in plain words, what weighs most first.
        kind: what weighs most: the title of a measure, or `UNREADABLE`.
    """

    scan_id: str
    score: float
    reasons: tuple[str, ...]
    kind: str


def typical_values(frame: pd.DataFrame) -> list[Typical]:
    """Return median and spread of every measure that any scan has, and how many scans are beyond the threshold."""
    found = []
    for measure in MEASURES:
        values = frame[measure.name].dropna().to_numpy(np.float64)
        if not values.size:
            continue
        median = float(np.median(values))
        spread = NORMAL_MAD * float(np.median(np.abs(values - median)))
        usual = Typical(measure, median, spread, values.size)
        if len(frame) >= FEWEST_SCANS:
            z = scores(frame[measure.name], usual)
            missing = int(is_missing(frame, usual).sum())
            low, high = int((z < -THRESHOLD).sum()), int((z > THRESHOLD).sum())
            usual = Typical(measure, median, spread, values.size, low, high, missing)
        found.append(usual)
    return found


def scores(values: pd.Series[float], usual: Typical) -> pd.Series[float]:
    """Return the modified z-scores: NaN where there is no value, 0 on the side that is no fault."""
    z = (values - usual.median) / max(usual.spread, usual.measure.slack)
    if not usual.measure.low:
        z = z.mask(z < 0, 0.0)
    return z


def is_missing(frame: pd.DataFrame, usual: Typical) -> pd.Series[bool]:
    """Return which readable scans lack a value that nearly all have."""
    expected = bool(usual.measure.missing) and usual.known >= KNOWN_SHARE * len(frame)
    return frame[usual.measure.name].isna() & (frame["problem"] == "") & expected


def find_outliers(frame: pd.DataFrame, typical: Sequence[Typical]) -> list[Outlier]:
    """Return the scans that stand out, the worst first.

    Args:
        frame: of `survey`.
        typical: of `typical_values`.

    Returns:
        Volumes that can't be read come first, then scans that lack a figure, then by score. With fewer than
        `FEWEST_SCANS` scans nothing is usual, so there are only unreadable ones.
    """
    found: dict[str, list[tuple[float, str, str]]] = {}
    for scan_id, problem in frame["problem"][frame["problem"] != ""].items():
        found[str(scan_id)] = [(np.inf, f"the volume {problem.removeprefix('the cached volume ')}", UNREADABLE)]
    if len(frame) >= FEWEST_SCANS:
        for usual in typical:
            title = usual.measure.title
            for scan_id in frame.index[is_missing(frame, usual)]:
                found.setdefault(str(scan_id), []).append((np.inf, missing_reason(usual), title))
            values = frame[usual.measure.name]
            z = scores(values, usual)
            for scan_id, score, value in zip(frame.index, z, values, strict=True):
                if abs(score) > THRESHOLD:
                    found.setdefault(str(scan_id), []).append((abs(score), reason(usual, value), title))
    outliers = []
    for scan_id, reasons in found.items():
        ordered = sorted(reasons, key=lambda one: -one[0])
        outliers.append(Outlier(scan_id, ordered[0][0], tuple(text for _, text, _ in ordered), ordered[0][2]))
    return sorted(outliers, key=lambda one: (one.kind != UNREADABLE, -one.score, one.scan_id))


def worst_of_each_kind(outliers: Sequence[Outlier], most: int) -> list[Outlier]:
    """Return the worst, taking turns among the kinds, so that a common one doesn't hide a rare one.

    Args:
        outliers: the worst first.
        most: how many to return at most.
    """
    seen: Counter[str] = Counter()
    turns = []
    for place, outlier in enumerate(outliers):
        turns.append((seen[outlier.kind], place))
        seen[outlier.kind] += 1
    return [outliers[place] for place in sorted(place for _, place in sorted(turns)[:most])]


def reason(usual: Typical, value: float) -> str:
    """Say what is unusual: "brain 61 HU, typical 33 ± 3 HU: contrast given, or wrong rescale?"."""
    measure = usual.measure
    guess = measure.high if value > usual.median else measure.low
    return f"{measure.title.lower()} {measure.text(value)}, typical {usual.text}: {guess}"


def missing_reason(usual: Typical) -> str:
    """Say that a figure is missing that nearly all scans have."""
    return f"{usual.measure.title.lower()} not found, typical {usual.text}: {usual.measure.missing}"


def groups(frame: pd.DataFrame, typical: Sequence[Typical]) -> list[Typical]:
    """Return the measures by which so many scans stand out that they are rather a group of their own."""
    if len(frame) < FEWEST_SCANS:
        return []
    return [usual for usual in typical if usual.low + usual.high > GROUP_SHARE * len(frame)]


def with_scores(frame: pd.DataFrame, typical: Sequence[Typical], outliers: Sequence[Outlier]) -> pd.DataFrame:
    """Return the table with a column `z_NAME` per measure, `score` and `reasons`; scores NaN with too few scans."""
    enough = len(frame) >= FEWEST_SCANS
    added = {
        f"z_{usual.measure.name}": scores(frame[usual.measure.name], usual) if enough else np.nan for usual in typical
    }
    by_id = {outlier.scan_id: outlier for outlier in outliers}
    z = pd.DataFrame(added, index=frame.index)
    table = pd.concat([frame, z], axis=1)
    table["score"] = z.abs().max(axis=1)
    table["reasons"] = ["; ".join(by_id[one].reasons) if one in by_id else "" for one in map(str, frame.index)]
    return table
