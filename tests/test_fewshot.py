"""`fmct fewshot`: the same patients for all initializations, every run once, nothing left out in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import TinyCohort
from sklearn.metrics import average_precision_score, roc_auc_score
from study_cohort import EXPERIMENTS, overlay, write_cohort

from fmct.cli import main
from fmct.data.datamodule import DataConfig
from fmct.experiment.loading import load_experiment
from fmct.experiment.starting import Start
from fmct.fit import main as fit

pytestmark = pytest.mark.usefixtures("one_thread")
KILLED_STUDIES = Path(__file__).resolve().parent / "killed_studies.py"
SMOKE = EXPERIMENTS / "overlays" / "smoke.yaml"


@dataclass(frozen=True)
class Study:
    """A finished few-shot study, and the command that made it."""

    folder: Path
    cohort: TinyCohort
    overlay: Path
    arguments: list[str]
    killed: set[str]

    def runs(self) -> dict[str, float]:
        return {
            path.parent.parent.parent.name: path.stat().st_mtime_ns
            for path in self.folder.glob("*/evaluations/*/predictions.parquet")
        }


def trained_on(run: Path) -> set[str]:
    """The patients that a run says it learned from."""
    record = yaml.safe_load((run / "experiment.yaml").read_text())
    data = DataConfig(**record["data"]).build(record["task"]["labels"], record["seed"])
    return set(data.train.frame["patient_id"])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two labels, k of 2, 4 and 9, two draws, pretrained and scratch; killed in its fourth training, then finished."""
    folder = tmp_path_factory.mktemp("fewshot")
    cohort = write_cohort(folder, sites=1)
    tiny = overlay(folder, cohort)
    assert (
        fit(["--config", str(EXPERIMENTS / "pretrain_mae_smoke.yaml"), "--config", str(SMOKE), "--config", str(tiny)])
        == 0
    )
    arguments = [
        *("fewshot", "--config", str(EXPERIMENTS / "fewshot_cq500.yaml"), "--config", str(SMOKE)),
        *("--config", str(tiny), "--labels", "ICH,SDH", "--shots", "4,2,9", "--seeds", "2", "--bootstrap", "200"),
        *("--init", "scratch", "--init", f"mae={folder / 'runs' / 'pretrain_mae_smoke'}", "--name", "study"),
    ]
    subprocess.run([sys.executable, str(KILLED_STUDIES), json.dumps([[3, arguments]])], check=True)
    before = Study(folder / "runs" / "study", cohort, tiny, arguments, set())
    killed = before.runs()
    assert len(killed) == 3
    assert main(arguments) == 3  # 9 patients of each class are too many
    done = before.runs()
    assert {name: done[name] for name in killed} == killed  # what was finished isn't done again
    return Study(before.folder, cohort, tiny, arguments, set(killed))


def test_every_run_has_its_row_and_every_gap_its_reason(study: Study) -> None:
    table = pd.read_parquet(study.folder / "fewshot.parquet")
    assert len(table) == 2 * 2 * 3 * 2
    assert set(table["data"]) == {"manifest-test"}
    gaps = table[table["k"] == 9]
    assert gaps["auroc"].isna().all()
    assert gaps["reason"].str.contains("has 8 positive and 8 negative patients").all()
    assert (table[table["k"] != 9]["reason"] == "").all()
    for row in table[table["k"] != 9].itertuples():
        run = study.folder / f"{row.initialization}-{row.label}-k{row.k}-seed{row.seed}"
        predictions = pd.read_parquet(run / "evaluations" / "manifest-test" / "predictions.parquet")
        assert set(predictions["label"]) == {row.label}
        assert row.auroc == pytest.approx(roc_auc_score(predictions["target"], predictions["probability"]), abs=1e-12)
        assert row.ap == pytest.approx(
            average_precision_score(predictions["target"], predictions["probability"]), abs=1e-12
        )
        assert (row.n_scans, row.n_positive) == (24, 12)
    curves = json.loads((study.folder / "fewshot.json").read_text())
    assert len(curves["skipped"]) == 8
    assert curves["failed"] == []


def test_draws_are_patients_shared_by_initializations_and_nested_in_k(study: Study) -> None:
    frame = pd.read_csv(study.cohort.manifest, dtype=str)
    positive = set(frame[frame["label:ICH"] == "1"]["patient_id"])
    drawn = {
        (start, k, seed): trained_on(study.folder / f"{start}-ICH-k{k}-seed{seed}")
        for start in ("scratch", "mae")
        for k in (2, 4)
        for seed in (0, 1)
    }
    for (_, k, seed), patients in drawn.items():
        assert len(patients) == 2 * k
        assert len(patients & positive) == k
        assert drawn["scratch", k, seed] == patients
        assert drawn["scratch", 2, seed] <= drawn["scratch", 4, seed]
    assert drawn["mae", 4, 0] != drawn["mae", 4, 1]


def test_random_weights_learn_at_the_heads_rate(study: Study) -> None:
    records = {
        start: yaml.safe_load((study.folder / f"{start}-ICH-k4-seed0" / "experiment.yaml").read_text())
        for start in ("scratch", "mae")
    }
    assert {start: record["task"]["backbone_lr_factor"] for start, record in records.items()} == {
        "scratch": 1.0,
        "mae": 0.01,
    }


def test_scratch_takes_back_the_decay_of_rates_by_layer() -> None:
    configs = [EXPERIMENTS / "fewshot_cq500.yaml"]
    decay = ["--optimizer.layer_decay=0.7"]
    assert load_experiment(configs, decay).optimizer.layer_decay == 0.7
    scratch = load_experiment(configs, [*decay, *Start("scratch").flags(configs, decay)])
    assert scratch.optimizer.layer_decay == 1


def test_a_run_of_the_study_is_what_fit_and_evaluate_give(study: Study, tmp_path: Path) -> None:
    name = "mae-SDH-k4-seed1"
    shots = json.dumps({"label": "SDH", "k": 4, "seed": 1})
    command = [
        *("--config", str(EXPERIMENTS / "fewshot_cq500.yaml"), "--config", str(SMOKE), "--config", str(study.overlay)),
        *("--task.weights", str(study.folder.parent / "pretrain_mae_smoke" / "weights"), "--data.shots", shots),
        *("--task.labels", "SDH", "--seed", "43", "--name", "byhand", "--trainer.runs", str(tmp_path)),
    ]
    assert fit(command) == 0
    assert main(["evaluate", str(tmp_path / "byhand"), "--data", str(study.cohort.manifest), "--name", "x"]) == 0
    by_hand = pd.read_parquet(tmp_path / "byhand" / "evaluations" / "x" / "predictions.parquet")
    theirs = pd.read_parquet(study.folder / name / "evaluations" / "manifest-test" / "predictions.parquet")
    np.testing.assert_array_equal(by_hand["probability"], theirs["probability"])
    assert not (study.folder / name / "weights").exists()
    assert not (study.folder / name / "checkpoints").exists()


def test_two_at_a_time_give_what_one_after_another_gives(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [word if "/" in word or word != "study" else "two-at-a-time" for word in study.arguments]
    assert main([*arguments, "--labels", "ICH", "--shots", "2", "--jobs", "2"]) == 0
    capsys.readouterr()
    found = sorted((study.folder.parent / "two-at-a-time").glob("*/evaluations/*/predictions.parquet"))
    assert len(found) == 4  # two initializations, two draws
    for path in found:
        other = study.folder / path.relative_to(study.folder.parent / "two-at-a-time")
        columns = ["scan_id", "label", "target", "probability"]
        pd.testing.assert_frame_equal(pd.read_parquet(path)[columns], pd.read_parquet(other)[columns])


def test_scratch_starts_from_other_weights_than_the_package(study: Study) -> None:
    records = {
        start: yaml.safe_load((study.folder / f"{start}-ICH-k2-seed0" / "experiment.yaml").read_text())
        for start in ("scratch", "mae")
    }
    assert records["scratch"]["task"]["weights"] is None
    assert records["mae"]["task"]["weights"].endswith("pretrain_mae_smoke/weights")
    assert records["scratch"]["seed"] == records["mae"]["seed"]


def test_a_finished_study_runs_nothing_and_prints_tables_of_a_terminals_width(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    before = study.runs()
    assert main(study.arguments) == 3
    assert study.runs() == before
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(len(line) for line in lines if not line.startswith(("skipped", "8 runs", "16 runs"))) <= 100
    means = [line.split() for line in lines if line.startswith("mean of 2 ")]
    assert [line[-1] for line in means] == ["n/a", "n/a"]  # at k = 9, where no label has runs
    assert "skipped: mae, SDH, k = 9, seeds 0, 1: data.shots.k is 9" in out
    assert "difference to scratch" in out
    curves = json.loads((study.folder / "fewshot.json").read_text())
    assert curves["mean"]["labels"] == ["ICH", "SDH"]
    assert main([*study.arguments, "--shots", "2,4", "--json"]) == 0  # fewer k: nothing is missing any more
    again = json.loads(capsys.readouterr().out)
    assert again["labels"]["ICH"]["points"][0] == curves["labels"]["ICH"]["points"][0]


def test_another_configuration_under_the_same_name_is_refused(
    study: Study, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "more.yaml").write_text("optimizer: {weight_decay: 0.5}")
    assert main([*study.arguments, "--config", str(tmp_path / "more.yaml")]) == 2
    error = capsys.readouterr().err
    assert "the run exists with another configuration (optimizer.weight_decay: 0.01 -> 0.5)" in error
    assert "--fresh" in error


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--init", "x"], "x has no weights"),
        (["--init", "x=missing"], "what the initialization names doesn't exist"),
        (["--init", "scratch=a"], "scratch is random weights"),
        (["--init", "scratch"], "two initializations have one name"),
        (["--shots", "8,x"], "'8,x' are no numbers of patients"),
        (["--labels", "SDHH"], "did you mean SDH?"),
        (["--split", "train"], "of the patients of evaluation manifest-train are among those trained on"),
    ],
)
def test_wrong_requests_are_three_lines(
    study: Study, capsys: pytest.CaptureFixture[str], more: list[str], expected: str
) -> None:
    assert main([*study.arguments, *more]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 3


def test_a_run_that_fails_is_named_and_the_others_go_on(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    other = study.overlay.parent / "other.yaml"  # an initialization may be a file laid over the experiment
    other.write_text("data: {batch_size: 8}\ntask: {weights: missing}")
    arguments = [word if "/" in word else word.replace("9", "4") for word in study.arguments]
    code = main([*arguments, "--labels", "ICH", "--shots", "2", "--seeds", "1", "--init", f"bad={other}", "--json"])
    assert code == 1
    curves = json.loads(capsys.readouterr().out)
    assert [(gap["initialization"], gap["label"], gap["k"]) for gap in curves["failed"]] == [("bad", "ICH", 2)]
    assert "the weight package doesn't exist" in curves["failed"][0]["reason"]
    points = {point["initialization"]: point for point in curves["labels"]["ICH"]["points"]}
    assert points["mae"]["status"] == "ok"
    assert points["bad"]["auroc"]["mean"] is None
