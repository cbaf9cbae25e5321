"""What the demo says at its end: what its runs show, what they don't, and what nothing of it can show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fmct.demo.outcome import ALL, Outcome
from fmct.demo.sizes import SITES
from fmct.demo.stages import AWAY, STUDY, Plan
from fmct.evaluation.wording import count, listing, share, signed_interval
from fmct.experiment.run_record import ENVIRONMENT, read_environment
from fmct.experiment.starting import SCRATCH


def conclusion(found: Sequence[Outcome], plan: Plan) -> str:
    """Write the conclusion: one line for each number of labels at home and away, then what is shown."""
    lines = ["Mean AUROC, and the 95 % interval of its difference to the same network trained from scratch:"]
    places = list(dict.fromkeys((one.k, one.group) for one in found if one.group in {SITES[0], AWAY}))
    for k, group in sorted(places, key=lambda place: (place[0] == ALL, place[0], place[1] == AWAY)):
        here = [one for one in found if (one.k, one.group) == (k, group)]
        said = listing([f"{one.start} {share(one.auroc.mean)}{against_scratch(one)}" for one in ranked(here)])
        lines.append(f"  {shots_text(k)}, {group} ({', '.join(here[0].labels)}): {said}.")
    return "\n".join([*lines, verdicts(found), caveat(plan)])


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Put scratch last, and the others as they are named."""
    return sorted(outcomes, key=lambda one: one.start == SCRATCH)


def against_scratch(one: Outcome) -> str:
    """Write the interval of a difference in parentheses."""
    if one.start == SCRATCH:
        return ""
    return f" ({signed_interval(one.difference.ci)})"


def shots_text(k: int) -> str:
    """Write how many labels: 8 + 8 patients, or all labels."""
    return "all labels" if k == ALL else f"{k} + {k} patients"


def verdicts(found: Sequence[Outcome]) -> str:
    """Say of every comparison which way its interval lies."""
    compared = [one for one in found if one.start != SCRATCH and one.group in {SITES[0], AWAY}]
    parts = []
    for verdict in ("above", "below"):
        named = [f"{one.start} ({shots_text(one.k)}, {one.group})" for one in compared if one.verdict == verdict]
        parts += [f"{verdict.capitalize()} scratch: {listing(named)}."] if named else []
    undecided = sum(not one.verdict for one in compared)
    why = "their intervals hold 0, or there are too few patients for one"
    return " ".join([*parts, f"Of {len(compared)} comparisons, {undecided} show nothing: {why}."])


def caveat(plan: Plan) -> str:
    """Say how much was learned from, and that it was synthetic."""
    frame = pd.read_csv(plan.manifest, dtype=str, keep_default_na=False)
    sizes = frame["split"].value_counts()
    tested = frame[frame["split"] == "test"]["site"].eq(SITES[0])
    unlabeled = int(sizes.get("pretrain", 0) + sizes.get("train", 0))
    few, every = (steps_from_scratch(plan.out / folder) for folder in (STUDY, ""))
    return (
        f"Size {plan.size.name}: {count(unlabeled, 'scan')} of {SITES[0]} unlabeled, {sizes.get('train', 0)} labeled; "
        f"tested on {int(tested.sum())} of it and {int((~tested).sum())} of hospitals never seen. "
        f"Runs from scratch took {few} steps with few labels and {every} with all; more may serve them better. "
        "Synthetic scans: nothing here says how patients fare."
    )


def steps_from_scratch(folder: Path) -> int:
    """Return how many optimizer steps the runs from scratch in a folder took, all of them alike."""
    steps: int = read_environment(min(folder.glob(f"{SCRATCH}*/{ENVIRONMENT}")).parent)["steps"]
    return steps
