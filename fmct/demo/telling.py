"""What a stage needs before it runs, and what the demo says about it afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import yaml

from fmct.console.files import atomic_path, write_text_atomically
from fmct.demo.stage import Stage
from fmct.demo.stages import SHOWN, SHOWN_OF_EACH_SITE, STUDY, Plan
from fmct.evaluation.training import series_of
from fmct.evaluation.wording import count, significant

REJECTS_SHOWN = 12


def before(stage: Stage, plan: Plan) -> None:
    """Write what a stage needs besides its command."""
    if stage.name == STUDY:
        write_overlay(plan)
    if stage.name == "maps":
        write_shown(plan)


def write_overlay(plan: Plan) -> None:
    """Write the overlay by which few-shot experiments find the scans."""
    content: dict[str, object] = {"data": {"manifest": str(plan.manifest), "cache": str(plan.cache)}}
    if plan.size.shot_steps is not None:
        content["trainer"] = {"max_steps": plan.size.shot_steps}
    text = yaml.safe_dump(content, sort_keys=False)
    write_text_atomically(plan.overlay, f"# Where this demo's scans are, laid over the few-shot experiments.\n{text}")


def write_shown(plan: Plan) -> None:
    """Write the manifest of the scans that maps are drawn of: of each hospital the first that have the finding.

    A hospital without any shows others, so that there are always maps.
    """
    frame = pd.read_csv(plan.manifest, dtype=str, keep_default_na=False)
    tested = frame[frame["split"] == "test"].sort_values(f"label:{SHOWN}", ascending=False, kind="stable")
    chosen = tested.groupby("site").head(SHOWN_OF_EACH_SITE).sort_values("site", kind="stable")
    with atomic_path(plan.shown) as temporary:
        chosen.to_csv(temporary, index=False)


def after(stage: Stage, plan: Plan) -> Iterator[str]:
    """Say what a reader wants to know at once: what was rejected and why, and whether pretraining learned."""
    if stage.name == "index":
        yield from rejected(plan)
    for one in plan.size.pretraining:
        if one.name == stage.name:
            metrics = pd.read_csv(plan.run(one.name) / "metrics.csv")
            for name, said in (("train/loss", "loss"), ("val/auroc", "AUROC of changed cells in other scans")):
                series = series_of(metrics, name)
                if series is not None:
                    yield f"{said} {significant(series.iloc[0])} at first, {significant(series.iloc[-1])} at the end"


def rejected(plan: Plan) -> Iterator[str]:
    """Say how many scans there are, and why each of the others isn't one."""
    frame = pd.read_csv(plan.rejects, dtype=str, keep_default_na=False)
    scans = pd.read_csv(plan.cohort / "indexed.csv", dtype=str)
    yield f"{count(len(scans), 'scan')}; {len(frame)} rejected, listed in {plan.rejects}:"
    for row in frame.head(REJECTS_SHOWN).itertuples():
        yield f"  {row.path}: {row.code}, {row.detail}"
    if len(frame) > REJECTS_SHOWN:
        yield f"  and {len(frame) - REJECTS_SHOWN} more"
