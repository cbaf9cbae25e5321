"""MODEL_CARD.md: what weights are for, what they learned from and how, what they are worth. Nothing about any patient.

Names that come from headers and manifests are escaped: a card may be shown as HTML.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fmct.evaluation.summary import Metrics
from fmct.evaluation.wording import count
from fmct.experiment.config import Config
from fmct.models.package_files import PackageConfig
from fmct.models.probe_heads import KNNHeadConfig, LogisticHeadConfig
from fmct.release.training_facts import StartedFrom, TrainingFacts

LIMITS = """\
For research only. Not a medical device; no diagnosis may rest on it.

* Meant for: features and research models of head CT of the kinds below, after validation on the scans that they are to
  be used on.
* Not meant for: decisions about patients, triage, other body parts, other modalities, identifying persons.
* Scans of other scanners, protocols, countries or age groups than those below may be read differently. What is rare or
  absent below was learned from little or nothing.
* Networks can keep traces of single training scans: hand weights on only as the data's terms of use allow.
"""


class ReleaseCheck(Config):
    """What the gate before a release found.

    Attributes:
        problems: sentences.
        overridden: whether the weights were released in spite of them.
    """

    problems: tuple[str, ...] = ()
    overridden: bool = False


def model_card(
    config: PackageConfig,
    facts: TrainingFacts | None,
    evaluations: Mapping[str, Metrics] | None = None,
    check: ReleaseCheck | None = None,
) -> str:
    """Write the text of MODEL_CARD.md.

    Args:
        config: of the package.
        facts: what the weights learned from; None where that isn't known.
        evaluations: metrics by the evaluation's name.
        check: what the gate found; None where it wasn't asked.
    """
    task = f"{config.task}, labels {', '.join(map(cell, config.labels))}" if config.labels else config.task
    parts = [
        f"# {config.name}\n\nHead-CT weights made by fmct {config.fmct_version}: {task}; {config.steps} steps.",
        *([described_head(config)] if described_head(config) else []),
        f"## Use and limits\n\n{LIMITS.strip()}",
        f"## Training scans\n\n{training_section(facts)}",
        f"## Results\n\n{results_section(evaluations or {})}",
        f"## Input\n\n{input_section(config)}",
        f"## Training\n\n{configuration_section(config, facts)}",
        f"## Release check\n\n{check_section(check)}",
    ]
    return "\n\n".join(parts) + "\n"


def cell(value: object) -> str:
    """Write text for a cell of a Markdown table: no markup, no line break."""
    text = " ".join(html.escape(str(value), quote=False).replace("|", "&#124;").split())
    return "".join(f"\\{letter}" if letter in "\\`*[]" else letter for letter in text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a Markdown table of cells that are escaped already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def training_section(facts: TrainingFacts | None) -> str:
    """Say what the weights saw: counts by site and scanner, faces, checksums."""
    if facts is None:
        return "What these weights learned from isn't known here: the run's manifest or cache couldn't be read."
    faces = {True: "were removed before training", False: "were **not** removed", None: "aren't known of: features"}
    lines = [
        f"{count(facts.scans, 'scan')} of {count(facts.patients, 'patient')}. Faces {faces[facts.defaced]}.",
        table(("site", "scans"), [(cell(site), n) for site, n in facts.by_site.items()]),
        table(("scanner", "scans"), [(cell(scanner), n) for scanner, n in facts.by_scanner.items()]),
        f"SHA-256 of the manifest: `{facts.manifest_sha256}`"
        + (f"; of the volumes' checksums: `{facts.volumes_sha256}`" if facts.volumes_sha256 else "")
        + ".",
    ]
    return "\n\n".join([*lines, *ancestors(facts.started_from)])


def ancestors(start: StartedFrom | None) -> list[str]:
    """Say what the weights began with, and what that had learned from."""
    if start is None:
        return []
    known = "; what they learned from isn't known here"
    if start.training is not None:
        faces = {True: "faces removed", False: "faces not removed", None: "faces not known of"}[start.training.defaced]
        scans, patients = count(start.training.scans, "scan"), count(start.training.patients, "patient")
        sites = ", ".join(map(cell, start.training.by_site))
        known = f", which learned from {scans} of {patients} ({sites}; {faces})"
    checksum = f" (`{start.weights_sha256[:12]}`)" if start.weights_sha256 else ""
    line = f"Training began with the weights of {cell(start.name)}{checksum}{known}."
    return [line, *(ancestors(start.training.started_from) if start.training else [])]


def results_section(evaluations: Mapping[str, Metrics]) -> str:
    """Write a table for each evaluation: AUROC and average precision with intervals."""
    if not evaluations:
        return "Not evaluated: nothing is known of how well these weights do anything."
    parts = []
    for name, metrics in evaluations.items():
        rows = [
            (
                cell(label),
                f"{one.n_scans} ({one.n_positive})",
                interval(one.auroc, one.auroc_ci),
                interval(one.ap, one.ap_ci),
            )
            for label, one in metrics.labels.items()
        ]
        coverage = f"{metrics.settings.confidence:.0%}"
        parts.append(
            f"{cell(name)}, intervals of {coverage} by patient:\n\n"
            + table(("label", "scans (positive)", "AUROC", "average precision"), rows)
        )
    return "\n\n".join(parts)


def interval(value: float | None, limits: tuple[float, float] | None) -> str:
    """Write a figure with its interval: .812 (.770–.850)."""
    if value is None:
        return "n/a"
    return f"{value:.3f}" + (f" ({limits[0]:.3f}–{limits[1]:.3f})" if limits else " (no interval)")


def input_section(config: PackageConfig) -> str:
    """Say exactly what becomes of a scan before the network sees it."""
    if config.input is None:
        return "Features that another model made of the scans; config.json names their columns."
    windows = ", ".join(f"{w.level_hu:g}/{w.width_hu:g}" for w in config.input.windows)
    shown = (
        f"{config.input.voxels}³ voxels, axes (Z, Y, X) growing to superior, anterior and right. One channel for each "
        f"window (level/width, HU: {windows}): (HU − level) / width + 0.5, clipped to 0..1."
    )
    if config.preprocessing is None:
        return f"{shown}\n\nThe preprocessing isn't known here."
    meanings = type(config.preprocessing).model_fields
    values = config.preprocessing.model_dump()
    rows = [(name, cell(value), cell(meanings[name].description)) for name, value in values.items()]
    return (
        f"{shown} `model.embed(path)` and `fmct embed` do all of it.\n\n"
        f"Preprocessing (`{config.preprocessing.folder_name()}`):\n\n{table(('setting', 'value', 'meaning'), rows)}"
    )


def configuration_section(config: PackageConfig, facts: TrainingFacts | None) -> str:
    """Write the architecture, and the run's configuration in short."""
    backbone = {key: value for key, value in config.backbone.model_dump().items() if key != "columns"}
    rows: list[Sequence[object]] = [("backbone", flat(backbone))]
    for section in ("task", "optimizer", "trainer", "data"):
        values: Any = facts.configuration.get(section) if facts else None
        if values:
            rows.append((section, flat(values)))
    if facts:
        rows.append(("seed", facts.configuration.get("seed")))
    return table(("section", "values"), rows)


def flat(values: Mapping[str, Any], prefix: str = "") -> str:
    """Write a section's values in one cell, without those that are unset: depth 6, crops.share [0.9, 1.0]."""
    parts = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            parts.append(flat(value, f"{prefix}{key}."))
        elif value is not None:
            listed = isinstance(value, (list, tuple))
            text = f"[{', '.join(map(str, value))}]" if listed else value
            parts.append(f"{cell(prefix + key)} {cell(text)}")
    return ", ".join(part for part in parts if part)


def check_section(check: ReleaseCheck | None) -> str:
    """Say what the gate found."""
    if check is None:
        return "Not made: `fmct export --for-release` makes it."
    if not check.problems:
        return "Passed: faces removed, no patient in two splits, none both trained and evaluated on (by identifier)."
    listed = "\n".join(f"* {cell(problem)}" for problem in check.problems)
    return f"**Released in spite of:**\n\n{listed}" if check.overridden else f"**Failed:**\n\n{listed}"


def described_head(config: PackageConfig) -> str:
    """Say what a head that was fitted without steps is, and what it gives away; empty for others."""
    head = config.head
    if isinstance(head, LogisticHeadConfig):
        return f"The head is a logistic regression (C {head.c:g}) on frozen features (pooling {head.pooling})."
    if isinstance(head, KNNHeadConfig):
        return (
            f"The head compares frozen features (pooling {head.pooling}) with those of the {head.scans} training "
            f"scans, which model.safetensors holds together with their labels, without names: {head.k} neighbors, "
            f"temperature {head.temperature:g}. Hand it on only to whom these may be shown."
        )
    return ""
