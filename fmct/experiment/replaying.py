"""`fmct fit --replay RUN`: run a run's first steps again, maybe elsewhere, and say whether the losses are the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fmct.callbacks.first_losses import FirstLosses, read_losses
from fmct.callbacks.preemption import Stopped, listening
from fmct.console.errors import ExitCode, UsageError
from fmct.experiment.flags import parse_flags
from fmct.experiment.loading import from_record, value_error
from fmct.experiment.preparing import is_first_process, prepare, say
from fmct.experiment.provenance import describe_environment, details, inputs_of, read_history, record_part
from fmct.experiment.run_record import read_experiment
from fmct.experiment.runs import begin, run_folder
from fmct.experiment.schema import Experiment
from fmct.experiment.training import train

PLACES = ("data.manifest", "data.cache", "data.workers", "data.prefetch_batches", "task.weights", "trainer.")
NOT_NEEDED = {"checkpoints": False, "tensorboard": False, "pictures_every_steps": 0}
COMPARED = ("fmct", "revision", "python", "device", "cpu", "threads", "cuda", "deterministic", "matmul_precision")
OF_INPUTS = ("seed", "manifest_sha256", "scans_sha256", "weights_sha256", "cache", "volumes_sha256")


def replay(run: Path, flags: Sequence[str]) -> ExitCode:
    """Run the first steps of a run again, in a folder of their own, and compare.

    Args:
        run: its folder.
        flags: of places and hardware that are others here, `--data.cache` for one.

    Returns:
        FAILED when the losses differ.

    Raises:
        UsageError: when the folder is no run, has no losses to compare with, or a flag would make it another run.
        Stopped: when it was asked to end before.
    """
    theirs = read_losses(run)
    if not theirs:
        raise UsageError("the run has no first_losses.json", run, "only runs that were started by fmct >= 0.2 have it")
    experiment = replayed(read_experiment(run), flags)
    with listening() as asked:
        prepared = prepare(experiment, asked, [FirstLosses(run_folder(experiment), len(theirs), stop=True)])
        start = begin(experiment, fresh=True, first_process=is_first_process())
        inputs = inputs_of(experiment, prepared.data)
        if is_first_process():
            record_part(start.folder, **inputs, replays=str(run))
        say(f"{run}: its first {len(theirs)} batches again, in {start.folder}")
        try:
            train(prepared.trainer, prepared.task, prepared.data, None)
        except Stopped:
            if asked.signal:
                raise
    ours = read_losses(start.folder)
    said, same = compared(theirs, ours)
    say(said)
    if same:
        return ExitCode.DONE
    for line in other_things(run, describe_environment(**details(), **inputs)):
        say(f"  {line}")
    return ExitCode.FAILED


def replayed(record: dict[str, Any], flags: Sequence[str]) -> Experiment:
    """Return the experiment of a run's record, with what flags say of other places, under another name.

    Raises:
        UsageError: when a flag isn't about places or hardware.
    """
    values = parse_flags(flags, Experiment)
    named = [f"{section}.{key}" for section, keys in values.items() if isinstance(keys, dict) for key in keys]
    named += [key for key, value in values.items() if not isinstance(value, dict)]
    for key in named:
        if not key.startswith(PLACES):
            fix = f"leave it out; what may be given: {', '.join(PLACES).replace('trainer.', 'trainer.*')}"
            raise UsageError(f"with another {key} it would be another run", "the command line of `fmct fit`", fix)
    record = record | {"name": f"{record.get('name')}.replay"}
    trainer = {**record.get("trainer", {}), **NOT_NEEDED, **values.pop("trainer", {})}
    merged = {**record, "trainer": trainer, **{key: {**record.get(key, {}), **new} for key, new in values.items()}}
    try:
        return from_record(merged)
    except ValidationError as error:
        raise value_error(error, "the run's experiment.yaml and the command line") from error


def compared(theirs: Sequence[float], ours: Sequence[float]) -> tuple[str, bool]:
    """Say whether losses are the same, bit for bit, or from which batch on they aren't, and by how much."""
    count = min(len(theirs), len(ours))
    pairs = list(zip(theirs, ours, strict=False))
    differing = [n for n, (a, b) in enumerate(pairs) if a != b and not (math.isnan(a) and math.isnan(b))]
    if not differing and len(theirs) == len(ours):
        return f"equal: the first {count} losses are the same, bit for bit", True
    if not differing:
        return f"differs: there are {len(theirs)} losses, here {len(ours)}; those that both have are the same", False
    first = differing[0]
    greatest = max(abs(theirs[n] - ours[n]) / max(abs(theirs[n]), 1e-12) for n in differing)
    return (
        f"differs from batch {first + 1} on: {theirs[first]!r} there, {ours[first]!r} here; of the first {count}, "
        f"{len(differing)} differ, by at most {greatest:.2g} of their value",
        False,
    )


def other_things(run: Path, here: dict[str, Any]) -> list[str]:
    """List what differs between a run's first part and here, which may be why; the inputs come first."""
    history = read_history(run)
    if not history:
        return ["the run has no history.json, by which it could be told why"]
    there = history[0]
    lines = [
        f"{key}: {there.get(key)} there, {here.get(key)} here"
        for key in (*OF_INPUTS, *COMPARED)
        if there.get(key) != here.get(key)
    ]
    packages = [(one.get("all_packages") or {}) for one in (there, here)]
    lines += [
        f"{name}: {packages[0].get(name)} there, {packages[1].get(name)} here"
        for name in ("torch", "lightning", "numpy", "blosc2", "torchdata", "monai")
        if packages[0].get(name) != packages[1].get(name)
    ]
    return lines or ["nothing that is recorded is another: look for what isn't reproducible (trainer.deterministic)"]
