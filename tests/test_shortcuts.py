"""Whether embeddings tell the site: found where it is in them, not where it isn't, and never through the patient."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from fmct.cli import main
from fmct.evaluation.confidence import Bootstrap
from fmct.evaluation.shortcuts import find_shortcuts, judged, out_of_fold

SETTINGS = Bootstrap(replicates=200)


def cohort(
    n_patients: int = 60, seed: int = 0, tell: float = 0.0, identity: float = 0.0
) -> tuple[pd.DataFrame, np.ndarray]:
    """Two scans per patient at one of three sites; features carry the site, or who the patient is."""
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), 2)
    site = patient % 3
    features = generator.normal(size=(2 * n_patients, 8)) + identity * generator.normal(size=(n_patients, 8))[patient]
    features[:, :3] += tell * np.eye(3)[site]
    scans = pd.DataFrame(
        {
            "scan_id": [f"{i:05d}" for i in range(2 * n_patients)],
            "path": [f"{i}.nii" for i in range(2 * n_patients)],
            "format": "nifti",
            "patient_id": [f"p{i}" for i in patient],
            "split": np.where(patient < n_patients // 2, "train", "test"),
            "site": np.array(["site_a", "site_b", "site_c"])[site],
            "manufacturer": np.where(site == 0, "GE", "Siemens"),
            "model": "",
        }
    )
    return scans, features


def of(scans: pd.DataFrame, features: np.ndarray, factor: str = "site") -> dict[str, object]:
    return {one.method: one for one in find_shortcuts(scans, features, [factor], SETTINGS).results}


def test_a_site_in_the_features_is_found_by_both_methods() -> None:
    for one in of(*cohort(tell=2.5)).values():
        assert one.balanced_accuracy > 0.7
        assert one.balanced_accuracy_chance == pytest.approx(1 / 3)
        assert one.balanced_accuracy_ci[0] > 1 / 3
        assert one.auroc_ci[0] > 0.8
        assert one.verdict == "told apart"
        assert one.classes == {"site_a": 40, "site_b": 40, "site_c": 40}
        assert (one.n_scans, one.n_patients) == (120, 60)


def test_features_that_know_the_patient_but_not_the_site_are_at_chance() -> None:
    verdicts = {"logistic regression": [], "nearest neighbors": []}
    for seed in range(10):
        for method, one in of(*cohort(seed=seed, identity=5.0)).items():
            verdicts[method].append(one.verdict)
    for said in verdicts.values():
        assert said.count("told apart") <= 2  # two scans of a patient are alike, and never in both parts


def test_no_patient_is_on_both_sides() -> None:
    scans, features = cohort()
    patient, classes = scans["patient_id"].to_numpy(object), np.arange(120) // 2 % 3
    numbered = np.column_stack([features, np.arange(120) // 2])
    asked: list[int] = []

    def scorer(bank: np.ndarray, of_bank: np.ndarray, query: np.ndarray) -> np.ndarray:
        assert not set(bank[:, -1]) & set(query[:, -1])
        assert set(of_bank) == {0, 1, 2}
        asked.extend(query[:, -1].astype(int))
        return np.full((len(query), 3), 1 / 3)

    out_of_fold(numbered, classes, patient, scorer, 5, seed=0)
    assert sorted(asked) == sorted(np.arange(120) // 2)


def test_figures_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    classes = generator.integers(3, size=200)
    scores = generator.dirichlet(np.ones(3), size=200) + 0.3 * np.eye(3)[classes]
    scores /= scores.sum(axis=1, keepdims=True)
    found = judged(scores, classes, np.array([f"p{i // 2}" for i in range(200)], dtype=object), SETTINGS)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(classes, scores.argmax(1)), abs=1e-12)
    assert found["auroc"] == pytest.approx(roc_auc_score(classes, scores, multi_class="ovr"), abs=1e-12)
    for name in ("balanced_accuracy", "auroc"):
        low, high = found[f"{name}_ci"]
        assert low < found[name] < high


def test_small_and_unknown_groups_are_left_out() -> None:
    scans, features = cohort(tell=2.5)
    scans.loc[:9, "site"] = "tiny"
    scans.loc[10:19, "site"] = ""
    one = of(scans, features)["logistic regression"]
    assert one.left_out == {"tiny": 10}
    assert one.n_scans == 100
    alone = of(scans, features, "model")["logistic regression"]
    assert (alone.status, alone.balanced_accuracy, alone.verdict) == ("n/a", None, "n/a")
    assert alone.reason == "no value with 10 patients or more, of 0 known"
    only = of(scans.assign(model="Revolution"), features, "model")["nearest neighbors"]
    assert only.reason == "only Revolution with 10 patients or more, of 1 known"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    scans, features = cohort(tell=2.5)
    table = pd.DataFrame(features, columns=[f"e{i:04d}" for i in range(8)])
    table.insert(0, "scan_id", scans["scan_id"])
    extra = table.tail(1).assign(scan_id="elsewhere")
    pd.concat([table.sample(frac=1, random_state=0), extra]).to_parquet(tmp_path / "E.parquet", index=False)
    more = scans.tail(1).assign(scan_id="not_embedded")
    pd.concat([scans, more]).to_csv(tmp_path / "M.csv", index=False)
    return tmp_path / "E.parquet", tmp_path / "M.csv"


def test_command_prints_a_table_and_writes_json(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["shortcuts", str(files[0]), "--data", str(files[1]), "--bootstrap", "200"]
    assert main([*arguments, "--out", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if "wrote" not in line) <= 100
    assert "from 8 features of 120 of 121 scans" in printed
    assert "above chance: site by logistic regression, site by nearest neighbors" in " ".join(printed.split())
    assert "n/a: no value with 10 patients" in printed
    assert main([*arguments, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome == json.loads((tmp_path / "out.json").read_text())
    assert (outcome["n_scans"], outcome["n_scans_not_embedded"], outcome["n_features"]) == (120, 1, 8)
    scans, features = cohort(tell=2.5)
    expected = of(scans, features)["logistic regression"]
    assert outcome["results"][0]["balanced_accuracy"] == expected.balanced_accuracy
    assert main([*arguments, "--split", "test", "--by", "site", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_scans"] == 60


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.drop(columns="scan_id"), "no column scan_id"),
        (lambda t: t.assign(scan_id=range(len(t))), "the column 'scan_id' holds numbers, not text"),
        (lambda t: t[["scan_id"]], "has no features"),
        (lambda t: pd.concat([t, t.head(2)]), "2 scans come twice: "),
        (lambda t: t.assign(e0003=np.inf), "e0003 is no finite number"),
        (lambda t: t.assign(e0003="x"), "the column e0003 holds no numbers"),
        (lambda t: t.assign(scan_id=t["scan_id"] + "x"), "no scan of the manifest is in the table"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], change: object, expected: str
) -> None:
    change(pd.read_parquet(files[0])).to_parquet(files[0], index=False)
    assert main(["shortcuts", str(files[0]), "--data", str(files[1])]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 3


def test_a_factor_that_no_column_stands_for_is_refused(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shortcuts", str(files[0]), "--data", str(files[1]), "--by", "sight"]) == 2
    assert "did you mean site?" in capsys.readouterr().err
