"""The sentences at the head of a report, written from the numbers and saying no more than they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fmct.evaluation.comparison import Difference
from fmct.evaluation.confidence import Bootstrap
from fmct.evaluation.descriptions import as_subject
from fmct.evaluation.results import Comparison, DataSetResults
from fmct.evaluation.wording import (
    count,
    duration,
    interval,
    listing,
    percent,
    share,
    signed,
    signed_interval,
    significant,
)


@dataclass
class Finding:
    """A headline with the sentences that stand behind it.

    Attributes:
        headline: one sentence.
        shown: sentences about differences whose interval excludes zero.
        undecided: sentences about the others, and about labels that can't be judged.
    """

    headline: str
    shown: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)


def comparison_finding(
    results: DataSetResults, comparison: Comparison, names: Sequence[str], confidence: float
) -> Finding:
    """Say what a run gains over its baseline on one data set, label by label."""
    run, baseline = names[comparison.run], as_subject(names[comparison.baseline])
    by_verdict: dict[str, list[str]] = {"higher": [], "lower": [], "undecided": [], "n/a": []}
    for label, difference in comparison.auroc.items():
        by_verdict[difference.verdict].append(label)
    judged = len(comparison.auroc) - len(by_verdict["n/a"])
    decided = len(by_verdict["higher"]) + len(by_verdict["lower"])
    if not judged:
        headline = f"{run} can't be compared with {baseline} on {results.name}: no label has scans of both classes."
    elif not decided:
        labels = "the only label" if judged == 1 else f"any of {judged} labels"
        headline = f"No difference between {as_subject(run)} and {baseline} is shown on {results.name} for {labels}."
    else:
        verbs = {"higher": "beats", "lower": "does worse than"}
        parts = [f"{verb} {baseline} for {listing(by_verdict[key])}" for key, verb in verbs.items() if by_verdict[key]]
        rest = ""
        if judged > decided:
            rest = f"; no difference is shown for {listing(by_verdict['undecided'])}"
        headline = f"{run} {' and '.join(parts)} on {results.name}{rest}."
    finding = Finding(headline)
    for label, difference in comparison.auroc.items():
        sentence = f"{label}: {difference_words(difference, confidence)}."
        (finding.shown if difference.verdict in {"higher", "lower"} else finding.undecided).append(sentence)
    if len(comparison.auroc) == judged == 1:  # one label: the numbers belong into the one sentence there is
        (only,) = comparison.auroc.values()
        return Finding(f"{headline.removesuffix('.')}: {difference_words(only, confidence)}.")
    return finding


def decided_labels(comparison: Comparison) -> list[str]:
    """Return the labels for which a difference is shown, either way."""
    return [label for label, difference in comparison.auroc.items() if difference.verdict in {"higher", "lower"}]


def common_finding(
    results: DataSetResults, comparisons: Sequence[Comparison], names: Sequence[str], confidence: float
) -> Finding:
    """Say once of several runs that nothing is shown to set them apart from their common baseline."""
    baseline = as_subject(names[comparisons[0].baseline])
    headline = (
        f"On {results.name}, none of {len(comparisons)} runs is shown to differ from {baseline}, "
        f"for any of {count(len(results.labels), 'label')}."
    )
    finding = Finding(headline)
    for one in comparisons:
        for label, difference in one.auroc.items():
            words = difference_words(difference, confidence)
            finding.undecided.append(f"{names[one.run]}, {label}: {words}.")
    return finding


def difference_words(difference: Difference, confidence: float) -> str:
    """Say how a run and its baseline differ for one label."""
    if difference.verdict == "n/a":
        return f"can't be judged, {difference.reason}"
    values = f"AUROC {share(difference.a)} vs {share(difference.b)}, difference {signed(difference.difference)}"
    sample = f"n = {count(difference.n_scans, 'scan')} of {count(difference.n_patients, 'patient')}"
    bounds = ""
    if difference.ci:
        zero = ", which includes zero" if difference.verdict == "undecided" else ""
        bounds = f" ({percent(confidence)} CI {signed_interval(difference.ci)}{zero})"
    note = f"; {difference.note}" if difference.note else ""
    return f"{values}{bounds}, {sample}{note}"


def result_finding(results: DataSetResults, run: int, names: Sequence[str]) -> Finding:
    """State a run's results on a data set where it has no baseline to be compared with."""
    finding = Finding(f"{names[run]} on {results.name}:")
    evaluation = results.evaluations[run]
    level = percent(evaluation.metrics.settings.confidence) if evaluation else ""
    for label in results.labels:
        result = results.result(run, label)
        if result is None:
            continue
        if result.auroc is None:
            finding.undecided.append(f"{label} on {results.name} can't be judged: {result.reason}.")
            continue
        sample = f"n = {count(result.n_scans, 'scan')} of {count(result.n_patients, 'patient')}"
        bounds = f"{level} CI {interval(result.auroc_ci)}" if result.auroc_ci else "no interval"
        note = f" ({result.note})" if result.note else ""
        finding.shown.append(f"{label}: AUROC {share(result.auroc)} ({bounds}), {sample}{note}.")
    return finding


def findings(gathered: Sequence[DataSetResults], names: Sequence[str], settings: Bootstrap) -> list[Finding]:
    """Return the findings of all data sets: comparisons first, plain results where there is no comparison."""
    found = []
    for results in gathered:
        undecided = [one for one in results.comparisons if not decided_labels(one)]
        if len(undecided) < 2 or len({one.baseline for one in undecided}) > 1:
            undecided = []  # nothing to say of several runs at once
        rest = [one for one in results.comparisons if one not in undecided]
        found += [comparison_finding(results, one, names, settings.confidence) for one in rest]
        if undecided:
            found.append(common_finding(results, undecided, names, settings.confidence))
        compared = {one.run for one in results.comparisons} | {one.baseline for one in results.comparisons}
        alone = [run for run in results.evaluated if run not in compared]
        found += [result_finding(results, run, names) for run in alone]
    return found


def caveats(
    gathered: Sequence[DataSetResults], is_classifier: Sequence[bool], is_baseline: Sequence[bool], settings: Bootstrap
) -> list[str]:
    """Return what a reader must know to read the findings rightly."""
    said = []
    if is_classifier and not any(is_classifier):
        said.append("None of these runs was adapted to labels, so this report holds no result on a disease.")
    elif is_classifier and not gathered:
        said.append("No run has been evaluated yet: `fmct evaluate RUN --data MANIFEST` gives results.")
    elif is_classifier and not any(is_baseline):
        said.append("None of these runs was trained from scratch, so what pretraining gives can't be read from them.")
    said += [refusal for results in gathered for refusal in results.refusals]
    said += [warning for results in gathered if (warning := not_held_out(results))]
    judged = [d for results in gathered for one in results.comparisons for d in one.auroc.values() if d.status == "ok"]
    if len(judged) > 1:
        chance = 1 - settings.confidence
        said.append(
            f"{len(judged)} differences were looked at and their intervals aren't corrected for that: where nothing "
            f"differs, about {100 * chance:g} in 100 such intervals exclude zero by chance. The p values "
            "beside them are corrected, over the labels of each comparison."
        )
    return said


def not_held_out(results: DataSetResults) -> str:
    """Warn of scans that their manifest gives to training."""
    for run in results.evaluated:
        predictions = results.predictions(run)
        if predictions is None or "split" not in predictions:
            continue
        splits = predictions.drop_duplicates("scan_id")["split"].astype("string").fillna("")
        training = int(splits.isin(["train", "pretrain"]).sum())
        if training:
            return (
                f"{training} of {len(splits)} scans of {results.name} are marked as training scans in their manifest: "
                "they are held out only for runs that were trained on other data."
            )
    return ""


def pretraining_sentence(name: str, training: dict[str, Any]) -> str:
    """Say how a pretraining went."""
    did = f"ran {count(training['steps'], 'step')}" if training["steps"] is not None else "ran"
    took = f" in {duration(training['seconds'])}" if training["seconds"] else ""
    around = []
    if training["scans_per_second"]:
        around.append(f"{significant(training['scans_per_second'])} scans/s")
    if training["device"]:
        around.append(str(training["device"]))
    aside = f" ({', '.join(around)})" if around else ""
    first, last = training["train_loss_first"], training["train_loss_last"]
    loss = (
        "; no loss was logged"
        if first is None
        else f"; its training loss went from {significant(first)} to {significant(last)}"
    )
    return f"{name} {did}{took}{aside}{loss}."
