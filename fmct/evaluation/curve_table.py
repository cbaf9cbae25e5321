"""Tables of curves and matrices as text, not wider than a terminal: what doesn't fit goes into a further block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fmct.evaluation.few_shot import CurvePoint, FewShot
from fmct.evaluation.seed_means import SeedMean
from fmct.evaluation.wording import share, signed

WIDTH = 100
GAP = "  "


def blocks(heads: Sequence[str], rows: Sequence[Sequence[str]], fixed: int) -> str:
    """Lay a table out.

    Args:
        heads: of the columns.
        rows: of cells.
        fixed: the first so many columns are repeated in every block.
    """
    widths = [max(len(line[column]) for line in [heads, *rows]) for column in range(len(heads))]
    columns = list(range(fixed, len(heads)))
    texts = []
    while columns:
        taken = list(range(fixed))
        while columns and (len(taken) == fixed or width(widths, [*taken, columns[0]]) <= WIDTH):
            taken.append(columns.pop(0))
        lines = [GAP.join(line[column].ljust(widths[column]) for column in taken).rstrip() for line in [heads, *rows]]
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def width(widths: Sequence[int], columns: Sequence[int]) -> int:
    """Return how wide some columns are together."""
    return sum(widths[column] for column in columns) + len(GAP) * (len(columns) - 1)


def cell(value: SeedMean) -> str:
    """Write a mean with its interval: 0.84 (0.79–0.90); a dash in place of an interval that can't be given."""
    if value.mean is None:
        return "n/a"
    bounds = f"{share(value.ci[0])}–{share(value.ci[1])}" if value.ci else "–"
    return f"{share(value.mean)} ({bounds})"


def difference_cell(value: SeedMean) -> str:
    """Write a difference with its interval: +0.05 (+0.01 to +0.09)."""
    if value.mean is None:
        return "n/a"
    bounds = f"{signed(value.ci[0])} to {signed(value.ci[1])}" if value.ci else "–"
    return f"{signed(value.mean)} ({bounds})"


def shot_table(curves: FewShot, metric: str = "auroc", *, differences: bool = False) -> str:
    """Lay few-shot curves out: a row for each label and initialization, a column for each k."""
    names = [name for name in curves.initializations if not differences or name != curves.baseline]
    rows = []
    groups: dict[str, Sequence[CurvePoint]] = {label: one.points for label, one in curves.labels.items()}
    if len(curves.mean.labels) > 1:
        groups[f"mean of {len(curves.mean.labels)}"] = curves.mean.points
    for label, points in groups.items():
        by_place = {(point.initialization, point.k): point for point in points}
        for number, name in enumerate(names):
            if differences:
                cells = [difference_cell(getattr(by_place[name, k], f"{metric}_difference")) for k in curves.shots]
            else:
                cells = [cell(getattr(by_place[name, k], metric)) for k in curves.shots]
            rows.append(["" if number else label, name, *cells])
    return blocks(["label", "start", *(f"k = {k}" for k in curves.shots)], rows, fixed=2)


def matrix(corner: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, str]]) -> str:
    """Lay cells out by row and column; "" where there is none."""
    lines = [[name, *(cells.get(column, "") for column in columns)] for name, cells in rows.items()]
    return blocks([corner, *columns], lines, fixed=1)
