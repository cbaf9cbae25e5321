"""`fmct fewshot --probe`: frozen features are made once, and each draw is what fit and evaluate would make of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from random_packages import random_package
from sklearn.metrics import roc_auc_score
from study_cohort import EXPERIMENTS, overlay, write_cohort

from fmct.cli import main
from fmct.experiment import shot_probing
from fmct.experiment.loading import load_experiment
from fmct.experiment.starting import Start
from fmct.fit import main as fit

pytestmark = pytest.mark.usefixtures("one_thread")
SMOKE = EXPERIMENTS / "overlays" / "smoke.yaml"


@dataclass(frozen=True)
class Study:
    """A finished study of probes, its weights and the command that made it."""

    folder: Path
    weights: Path
    manifest: Path
    configs: list[str]
    arguments: list[str]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two labels, k of 2 and 4, three draws: one probe's weights, two that take turns, and random features."""
    folder = tmp_path_factory.mktemp("probes")
    cohort = write_cohort(folder)
    files = [EXPERIMENTS / "fewshot_cq500.yaml", SMOKE, overlay(folder, cohort)]
    experiment = load_experiment(files, ["--task.labels", '["ICH"]'])
    weights = random_package(experiment, cohort.cache, folder / "weights")
    other = experiment.model_copy(update={"backbone": experiment.backbone.model_copy(update={"depth": 2})})
    deeper = random_package(other, cohort.cache, folder / "deeper")
    configs = [word for path in files for word in ("--config", str(path))]
    arguments = [
        *("fewshot", *configs, "--labels", "ICH,SDH", "--shots", "2,4", "--seeds", "3", "--bootstrap", "200"),
        *("--probe", f"one={weights}", "--probe", f"turns={weights}", "--probe", f"turns={deeper}"),
        *("--probe", "random=scratch", "--name", "study", "--group", "a=site_a", "--group", "both=site_b+site_a"),
    ]
    assert main(arguments) == 0
    return Study(folder / "runs" / "study", weights, cohort.manifest, configs, arguments)


def said(study: Study, start: str, label: str, k: int, draw: int) -> pd.DataFrame:
    """What one probe said of the test scans, by scan."""
    rows = pd.read_parquet(study.folder / "probes.parquet")
    chosen = (rows["initialization"] == start) & (rows["label"] == label) & (rows["k"] == k) & (rows["draw"] == draw)
    return rows[chosen].set_index("scan_id").sort_index()


def test_a_probe_is_what_fit_and_evaluate_give(study: Study, tmp_path: Path) -> None:
    shots = json.dumps({"label": "SDH", "k": 4, "seed": 1})
    command = [
        *(*study.configs, "--task.weights", str(study.weights), "--data.shots", shots, "--task.labels", "SDH"),
        *("--task.mode", "logreg", "--task.probe", '{"pooling": "mean+std", "c": [0.01]}'),
        *("--name", "byhand", "--trainer.runs", str(tmp_path)),
    ]
    assert fit(command) == 0
    assert main(["evaluate", str(tmp_path / "byhand"), "--data", str(study.manifest), "--name", "x"]) == 0
    by_hand = pd.read_parquet(tmp_path / "byhand" / "evaluations" / "x" / "predictions.parquet")
    by_hand = by_hand.set_index("scan_id").sort_index()
    theirs = said(study, "one", "SDH", 4, 1)
    np.testing.assert_allclose(theirs["probability"], by_hand["probability"], atol=1e-5)
    np.testing.assert_array_equal(theirs["target"], by_hand["target"])
    assert (theirs["candidate"] == 0.01).all()


def test_a_whitened_probe_is_what_fit_and_evaluate_give(study: Study, tmp_path: Path) -> None:
    arguments = [*study.configs, "--labels", "SDH", "--shots", "4", "--seeds", "2", "--bootstrap", "100"]
    arguments += ["--probe", f"one={study.weights}", "--whiten", "3", "--pooling", "mean+std+mirror"]
    arguments += ["--runs", str(tmp_path), "--name", "study"]
    assert main(["fewshot", *arguments]) == 0
    white = said(replace(study, folder=tmp_path / "study"), "one", "SDH", 4, 1)
    assert np.abs(white["probability"] - said(study, "one", "SDH", 4, 1)["probability"]).max() > 1e-3
    shots = json.dumps({"label": "SDH", "k": 4, "seed": 1})
    command = [
        *(*study.configs, "--task.weights", str(study.weights), "--data.shots", shots, "--task.labels", "SDH"),
        *("--task.mode", "logreg", "--name", "byhand", "--trainer.runs", str(tmp_path)),
        *("--task.probe", '{"pooling": "mean+std+mirror", "c": [0.01], "whiten": {"components": 3}}'),
    ]
    assert fit(command) == 0
    assert main(["evaluate", str(tmp_path / "byhand"), "--data", str(study.manifest), "--name", "x"]) == 0
    by_hand = pd.read_parquet(tmp_path / "byhand" / "evaluations" / "x" / "predictions.parquet")
    by_hand = by_hand.set_index("scan_id").sort_index()
    np.testing.assert_allclose(white["probability"], by_hand["probability"], atol=1e-5)


def test_test_patients_may_not_whiten(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = pd.read_csv(study.manifest, dtype=str, keep_default_na=False)
    manifest.loc[manifest["split"] == "test", "split"] = "pretrain"
    manifest.to_csv(study.manifest.parent / "leaking.csv", index=False)
    arguments = [*study.configs, "--data", str(study.manifest.parent / "leaking.csv"), "--split", "pretrain"]
    overlay = tmp_path / "leaking.yaml"
    overlay.write_text(f"data: {{manifest: {study.manifest.parent / 'leaking.csv'}}}\n")
    arguments += [
        "--config",
        str(overlay),
        "--labels",
        "SDH",
        "--probe",
        f"one={study.weights}",
        "--runs",
        str(tmp_path),
    ]
    assert main(["fewshot", *arguments, "--whiten", "3"]) == 2
    assert "are among those trained on" in capsys.readouterr().err


def test_every_draw_is_a_row_with_its_auroc(study: Study) -> None:
    table = pd.read_parquet(study.folder / "fewshot.parquet")
    assert len(table) == 3 * 2 * 2 * 3
    for row in table.itertuples():
        found = said(study, row.initialization, row.label, row.k, row.seed)
        assert row.auroc == pytest.approx(roc_auc_score(found["target"], found["probability"]), abs=1e-12)
    assert json.loads((study.folder / "fewshot.json").read_text())["skipped"] == []


def test_weights_of_one_name_take_turns(study: Study) -> None:
    first, second, third = (said(study, "turns", "ICH", 2, draw)["probability"].to_numpy() for draw in (0, 1, 2))
    one = [said(study, "one", "ICH", 2, draw)["probability"].to_numpy() for draw in (0, 1, 2)]
    np.testing.assert_array_equal(first, one[0])
    np.testing.assert_array_equal(third, one[2])
    assert np.abs(second - one[1]).max() > 1e-6


def test_groups_are_the_same_runs_on_some_of_the_scans(study: Study) -> None:
    found = said(study, "one", "ICH", 4, 0)
    for group, sites in (("a", ["site_a"]), ("both", ["site_a", "site_b"])):
        table = pd.read_parquet(study.folder / group / "fewshot.parquet")
        row = table[(table["initialization"] == "one") & (table["label"] == "ICH") & (table["k"] == 4)].iloc[0]
        here = found[found["site"].isin(sites)]
        assert row["n_scans"] == len(here) == 24 * len(sites)
        assert row["auroc"] == pytest.approx(roc_auc_score(here["target"], here["probability"]), abs=1e-12)


def test_features_are_made_once_and_again_for_other_weights(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = shot_probing.embedded
    monkeypatch.setattr(shot_probing, "embedded", lambda *given: made.append(len(given[1])) or real(*given))
    before = pd.read_parquet(study.folder / "probes.parquet")
    assert main(study.arguments) == 0
    assert made == []
    pd.testing.assert_frame_equal(pd.read_parquet(study.folder / "probes.parquet"), before)
    assert main([*study.arguments, "--pooling", "cls", "--probe", f"new={study.weights}"]) == 0
    assert made == [80] * 5  # 32 scans to draw from and 48 to test on, for five probes
    assert main(study.arguments) == 0


def test_probes_and_trained_starts_are_compared_on_the_same_patients(study: Study) -> None:
    more = ["--init", "scratch", "--shots", "2", "--seeds", "2", "--labels", "ICH", "--name", "beside"]
    assert main([*study.arguments, *more]) == 0
    curves = json.loads((study.folder.parent / "beside" / "both" / "fewshot.json").read_text())
    assert curves["baseline"] == "scratch"
    points = {point["initialization"]: point for point in curves["mean"]["points"]}
    by_hand = points["one"]["auroc"]["mean"] - points["scratch"]["auroc"]["mean"]
    assert points["one"]["auroc_difference"]["mean"] == pytest.approx(by_hand)
    assert points["one"]["auroc_difference"]["n_seeds"] == 2


def test_the_penalty_is_chosen_within_the_draw(study: Study) -> None:
    assert main([*study.arguments, "--c", "1e-4,1,100", "--name", "chosen"]) == 0
    rows = pd.read_parquet(study.folder.parent / "chosen" / "probes.parquet")
    assert set(rows["candidate"]) <= {1e-4, 1.0, 100.0}
    assert len(set(rows["candidate"])) > 1


def test_a_whole_experiment_takes_the_place_of_the_first_file(tmp_path: Path) -> None:
    files = [EXPERIMENTS / "fewshot_cq500.yaml", SMOKE]
    cnn = EXPERIMENTS / "demo" / "fewshot_cnn.yaml"
    assert Start.of(f"cnn={cnn}").configs(files) == [cnn, SMOKE]
    part = tmp_path / "part.yaml"
    part.write_text("optimizer: {lr: 0.1}")
    assert Start.of(f"part={part}").configs(files) == [*files, part]
    assert Start.of("scratch").configs(files) == files


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--probe", "x"], "x names no probe and its weights"),
        (["--probe", "scratch=scratch"], "names no probe and its weights"),
        (["--probe", "x=missing"], "what the probe names doesn't exist"),
        (["--probe", "one=scratch"], "two initializations have one name"),
        (["--c", "0"], "no strengths of a penalty"),
        (["--group", "a"], "no group of sites"),
        (["--split", "train"], "are among those trained on"),
    ],
)
def test_wrong_requests_are_three_lines(
    study: Study, capsys: pytest.CaptureFixture[str], more: list[str], expected: str
) -> None:
    assert main([*study.arguments, *more]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 3
