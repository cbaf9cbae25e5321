"""What a few-shot study prints: its curves, differences to training from scratch, and which runs there aren't."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fmct.evaluation.curve_table import shot_table
from fmct.evaluation.few_shot import FewShot


def study_text(curves: FewShot, folder: Path) -> str:
    """Lay a study out for a terminal.

    Args:
        curves: the study.
        folder: its folder, where the logs of failed runs are.
    """
    parts = [f"AUROC, mean of {curves.seeds} draws (95 % CI over test patients and draws)", shot_table(curves)]
    if curves.baseline and len(curves.initializations) > 1:
        parts += ["AUROC, difference to scratch, draw by draw (95 % CI)", shot_table(curves, differences=True)]
    gaps = "\n".join(gap_lines(curves, folder))
    return "\n\n".join([*parts, *([gaps] if gaps else [])]) + "\n"


def gap_lines(curves: FewShot, folder: Path) -> Iterator[str]:
    """Say which runs there aren't, and why."""
    if curves.mean.left_out and len(curves.labels) > 1:
        yield f"not in the mean, for lack of runs or of a class: {', '.join(curves.mean.left_out)}"
    for kind, gaps in (("skipped", curves.skipped), ("failed", curves.failed)):
        seeds: dict[tuple[str, str, int, str], list[int]] = {}
        for gap in gaps:
            seeds.setdefault((gap.initialization, gap.label, gap.k, gap.reason), []).append(gap.seed)
        for (name, label, k, reason), numbers in seeds.items():
            yield f"{kind}: {name}, {label}, k = {k}, seeds {', '.join(map(str, numbers))}: {reason}"
        if kind == "failed" and gaps:
            yield f"what they printed is in {folder / 'logs'}"
