"""An experiment before it is run: its file, manifest, cache and weights, the run it would go on, its steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fmct.checkup.finding import Finding, ok, tried
from fmct.console.errors import FmctError
from fmct.evaluation.wording import count
from fmct.experiment.loading import as_record, load_experiment
from fmct.experiment.runs import changes_since, first_of, is_begun, is_finished, run_folder
from fmct.experiment.schema import Experiment
from fmct.experiment.weights import initial_backbone


def check_experiment(files: Sequence[Path], probe_s: float) -> Iterator[Finding]:
    """Look at all that an experiment needs, in the order in which `fmct fit` would stumble over it.

    Args:
        files: the experiment file, then overlays.
        probe_s: how long steps are tried; 0: not at all.
    """
    try:
        experiment = load_experiment(files)
    except FmctError as error:
        yield Finding("experiment", "problem", f"{error.what} ({error.where})", error.fix)
        return
    yield ok("experiment", f"{experiment.name}: {experiment.task.kind}")
    yield check_run(experiment)
    try:
        data = experiment.data.build(experiment.labels, experiment.seed)
    except FmctError as error:
        yield Finding("scans", "problem", f"{error.what} ({error.where})", error.fix)
        return
    val = f", {len(data.val)} for validation" if data.val else ""
    yield ok("scans", f"{count(len(data.train), 'scan')} to train on{val}")
    if experiment.data.features is None:

        def look() -> str:
            backbone = initial_backbone(experiment, data)
            millions = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
            return f"{millions:.1f} million parameters, {started_from(experiment)}"

        network = tried("network", look)
        yield network
        if probe_s and network.level == "ok":
            from fmct.checkup.step_probe import probe

            yield from probe(experiment, data, probe_s)


def started_from(experiment: Experiment) -> str:
    """Say which weights an experiment begins with."""
    weights = experiment.task.weights
    return f"from {weights}" if weights else "from random weights"


def check_run(experiment: Experiment) -> Finding:
    """Say whether the run is new, goes on, is finished, or is in the way."""
    folder = run_folder(experiment)
    try:
        changes = changes_since(folder, as_record(experiment))
    except FmctError as error:
        return Finding("run", "problem", f"{error.what} ({error.where})", error.fix)
    if changes and is_begun(folder):
        said = f"{folder} is of another configuration ({first_of(changes)})"
        return Finding("run", "problem", said, "give another --name, or start over with --fresh")
    if is_finished(folder):
        return Finding("run", "warning", f"{folder} is finished already", "start over with --fresh, or another --name")
    return ok("run", f"{folder} " + ("goes on" if is_begun(folder) else "would be new"))
