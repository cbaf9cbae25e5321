"""The demo's results as a table in Markdown, for a README: OUT/table.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fmct.console.files import write_text_atomically
from fmct.demo.conclusion import caveat, shots_text
from fmct.demo.outcome import ALL, Outcome
from fmct.demo.stages import Plan
from fmct.evaluation.wording import interval, share, signed, signed_interval
from fmct.experiment.starting import SCRATCH


def write_table(found: Sequence[Outcome], plan: Plan) -> None:
    """Write OUT/table.md: a table for each number of labels, a row per start, a column per group of hospitals."""
    write_text_atomically(plan.out / "table.md", "\n".join(table_lines(found, plan)) + "\n")


def table_lines(found: Sequence[Outcome], plan: Plan) -> Iterator[str]:
    """Yield the lines."""
    at = {(one.k, one.start, one.group): one for one in found}
    yield caveat(plan)
    yield ""
    yield "AUROC with 95 % interval; below it, the difference to the same network trained from scratch."
    for k in sorted({one.k for one in found}, key=lambda k: (k == ALL, k)):
        here = [one for one in found if one.k == k]
        groups = [group for group in plan.groups if any(one.group == group for one in here)]
        labels = {group: next(one.labels for one in here if one.group == group) for group in groups}
        yield ""
        yield f"| {shots_text(k)} | " + " | ".join(f"{group} ({', '.join(labels[group])})" for group in groups) + " |"
        yield "|---" * (len(groups) + 1) + "|"
        for start in dict.fromkeys(one.start for one in sorted(here, key=lambda one: one.start != SCRATCH)):
            cells = [cell(at.get((k, start, group))) for group in groups]
            yield f"| {start} | " + " | ".join(cells) + " |"


def cell(one: Outcome | None) -> str:
    """Write one outcome; a difference whose interval leaves out zero is bold."""
    if one is None:
        return "n/a"
    text = f"{share(one.auroc.mean)} ({interval(one.auroc.ci)})"
    if one.start == SCRATCH or one.difference.mean is None:
        return text
    difference = f"{signed(one.difference.mean)} ({signed_interval(one.difference.ci)})"
    return f"{text}<br>{f'**{difference}**' if one.verdict else difference}"
