"""The demo, small: every stage through its own command, resumable, ending in a report and an honest conclusion."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fmct.cli import main
from fmct.console.errors import ExitCode
from fmct.demo.clock import Clock, Record
from fmct.demo.conclusion import against_scratch, verdicts
from fmct.demo.outcome import Outcome, outcomes
from fmct.demo.sizes import DEMO, HEADLINE, LABELS, QUICK, SITES, SIZES
from fmct.demo.stage import Stage
from fmct.demo.stages import Plan
from fmct.evaluation.comparison import paired_difference
from fmct.evaluation.seed_means import SeedMean
from fmct.experiment.loading import load_experiment
from fmct.experiment.shipped import experiments_folder


@dataclass(frozen=True)
class Made:
    """A finished quick demo, and what it printed."""

    out: Path
    printed: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Run the quick demo, end it while it pretrains, and go on; in $FMCT_SMOKE if that is given."""
    folder = os.environ.get("FMCT_SMOKE")
    out = Path(folder) if folder else tmp_path_factory.mktemp("demo") / "quick"
    command = [sys.executable, "-m", "fmct.demo", "--size", "quick", "--out", str(out), "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as killed:
        until(lambda: (out / "stages" / "preprocess.json").exists() and (out / "pretrain_mae" / "tb").exists(), killed)
        os.kill(killed.pid, signal.SIGTERM)  # while it pretrains
        printed, _ = killed.communicate(timeout=60)
    assert killed.returncode == ExitCode.PREEMPTED, printed
    assert "it goes on from there" in printed
    done = {path.name: path.read_bytes() for path in (out / "stages").iterdir()}
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {name: (out / "stages" / name).read_bytes() for name in done} == done
    assert f"{len(done)} of {len(Plan(QUICK, out, 0, 1).stages())} stages are done already" in again.stdout
    return Made(out, again.stdout)


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that a process does."""
    while not condition():
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.05)


@pytest.mark.smoke
def test_the_report_has_every_run_and_study(made: Made) -> None:
    page = (made.out / "report.html").read_text()
    assert "no diagnosis" in page
    assert page.count("data:image/") >= 6  # curves, few-shot curves, reconstructions, scans, embeddings
    for name in (*(one.name for one in QUICK.pretraining), *(one.name for one in QUICK.adaptation)):
        assert name in page
    for name in ("MidlineShift", "random-probe", "k = 2"):
        assert name in page
    assert f"Open {made.out / 'report.html'}" in made.printed


@pytest.mark.smoke
def test_hospitals_but_the_first_are_never_learned_from(made: Made) -> None:
    manifest = pd.read_csv(made.out / "cohort" / "manifest.csv", dtype=str)
    assert set(manifest["site"]) == set(SITES)
    assert set(manifest[manifest["site"] != SITES[0]]["split"]) == {"test"}
    assert manifest.groupby("patient_id")["split"].nunique().max() == 1
    for site in SITES:
        rows = pd.read_parquet(made.out / "scratch" / "evaluations" / site / "predictions.parquet")
        assert set(rows["site"]) == {site}


@pytest.mark.smoke
def test_the_report_shows_where_a_model_looks_at_scans_of_every_hospital(made: Made) -> None:
    shown = pd.read_csv(made.out / "shown.csv", dtype=str)
    tested = pd.read_csv(made.out / "cohort" / "manifest.csv", dtype=str).query("split == 'test'")
    for site in SITES:
        have = min(1, (tested[tested["site"] == site]["label:IPH"] == "1").sum())
        assert len(shown[shown["site"] == site]) == 1
        assert (shown[shown["site"] == site]["label:IPH"] == "1").sum() == have
    said = pd.read_csv(made.out / "shown" / "probabilities.csv")
    page = (made.out / "report.html").read_text()
    for row in said.itertuples():
        assert f"occlusion-IPH, {row.scan_id}, probability {row.probability:.2f}" in page


@pytest.mark.smoke
def test_losses_fell(made: Made) -> None:
    for one in QUICK.pretraining:
        losses = pd.read_csv(made.out / one.name / "metrics.csv")["train/loss"].dropna()
        half = len(losses) // 2
        assert losses.iloc[half:].mean() < losses.iloc[:half].mean(), one.name


@pytest.mark.smoke
def test_rejects_are_told_with_their_reasons(made: Made) -> None:
    rejects = pd.read_csv(made.out / "cohort" / "rejects.csv", dtype=str)
    assert {"LOCALIZER", "GAP", "DUPLICATE_POSITION"} <= set(rejects["code"])


@pytest.mark.smoke
def test_the_conclusion_is_computed_from_predictions(made: Made) -> None:
    found = outcomes(Plan(QUICK, made.out, 0, 1))
    one = next(one for one in found if (one.start, one.k, one.group) == ("cnn", 0, SITES[0]))
    runs = [
        pd.read_parquet(made.out / run / "evaluations" / SITES[0] / "predictions.parquet") for run in ("cnn", "scratch")
    ]
    differences = paired_difference(*runs, bootstrap=100)
    values = [differences[label].difference for label in one.labels]
    assert one.difference.mean == pytest.approx(np.mean([value for value in values if value is not None]))
    assert "Mean AUROC" in made.printed
    assert "hospitals never seen. Runs from scratch took 3 steps with few labels and 4 with all" in made.printed
    table = (made.out / "table.md").read_text()
    assert "| 2 + 2 patients |" in table
    assert "| all labels |" in table


@pytest.mark.smoke
def test_other_settings_in_the_same_folder_are_refused(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--size", "quick", "--out", str(made.out), "--seed", "1", "--workers", "1"]) == 2
    assert "a demo with other settings (stage phantom)" in capsys.readouterr().err


@pytest.mark.smoke
def test_tensorboard_has_reconstructions_hyperparameters_curves_and_the_projector(made: Made) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    events = EventAccumulator(str(made.out / "pretrain_mae" / "tb"), size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"]
    assert "projector_config.pbtxt" in {path.name for path in (made.out / "pretrain_mae" / "tb").iterdir()}


def test_a_stage_that_fails_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "something").touch()  # fmct phantom refuses a folder that isn't empty
    assert main(["demo", "--size", "quick", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "synthetic heads" in error
    assert "isn't an empty folder" in error
    assert "it goes on from there" in error


@pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
def test_every_training_of_every_size_is_a_valid_experiment(size: object, tmp_path: Path) -> None:
    plan = Plan(size, tmp_path, 0, 2)  # type: ignore[arg-type]
    stages = plan.stages()
    assert len({stage.name for stage in stages}) == len(stages)
    for stage in stages:
        for command in stage.commands:
            if command[0] == "fit" and Path(command[2]).exists():
                experiment = load_experiment([Path(command[2])], command[3:])
                assert experiment.labels in {(), LABELS}
                assert experiment.data.sites is None


def test_the_three_sizes_are_one_design() -> None:
    for size in (QUICK, DEMO, HEADLINE):
        assert len(size.shares) == len(SITES)
        assert {one.probe for one in size.pretraining} >= {"mae-probe", "anomaly-probe", "dino-probe"}
        assert {"scratch", "cnn", "finetune_anomaly", "attentive_random"} <= {one.name for one in size.adaptation}
        assert {one.weights for one in size.adaptation} - {""} <= {one.name for one in size.pretraining}
        assert set(size.tuned) <= {one.name for one in size.pretraining}
        assert (experiments_folder() / size.shot_config).exists()
    assert len({one.probe for one in HEADLINE.pretraining if "percent" in one.probe}) == 3


def stage(name: str, seconds: float, folder: Path) -> Stage:
    (folder / name).touch()
    return Stage(name, name, (("x",),), seconds, folder / name)


def test_the_estimate_follows_this_machine(tmp_path: Path) -> None:
    stages = [stage("first", 100, tmp_path), stage("second", 300, tmp_path), stage("third", 100, tmp_path)]
    record = Record(tmp_path / "stages")
    clock = Clock(stages, record)
    assert clock.left == pytest.approx(500)
    record.add(stages[0], 260)  # 160 s more than usual: (60 + 260) / (60 + 100)
    assert clock.slowness == pytest.approx(2)
    assert clock.left == pytest.approx(800)
    assert clock.share == pytest.approx(260 / 1060)
    clock.begin(stages[1])
    clock.stage_begun -= 400  # so long ago
    assert clock.left == pytest.approx(200 + 200, abs=1)
    clock.stage_begun -= 400  # longer than expected: a tenth of it is left
    assert clock.left == pytest.approx(80 + 200, abs=1)
    again = Record(tmp_path / "stages")
    assert [again.knows(one) for one in stages] == [True, False, False]
    assert again.seconds == {"first": 260}
    stages[0].result.unlink()
    assert not again.knows(stages[0])


def outcome(start: str, low: float, high: float) -> Outcome:
    mean = SeedMean(mean=(low + high) / 2, ci=(low, high))
    return Outcome(start, 8, SITES[0], ("ICH",), SeedMean(mean=0.7), mean)


def test_an_interval_that_holds_zero_is_no_difference() -> None:
    found = [outcome("a", 0.1, 0.2), outcome("b", -0.1, 0.2), outcome("c", -0.2, -0.1)]
    said = verdicts(found)
    assert said == (
        "Above scratch: a (8 + 8 patients, site_a). Below scratch: c (8 + 8 patients, site_a). "
        "Of 3 comparisons, 1 show nothing: their intervals hold 0, or there are too few patients for one."
    )
    missing = replace(found[0], difference=SeedMean(mean=0.1))
    assert missing.verdict == ""
    assert against_scratch(missing) == " (no interval)"


@pytest.mark.smoke
def test_records_are_readable(made: Made) -> None:
    content = json.loads((made.out / "stages" / "index.json").read_text())
    assert content["commands"][0][0] == "index"
    assert content["seconds"] > 0
