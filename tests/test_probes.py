"""Probes that are fitted, not trained: against scikit-learn, and through the command line from weights to metrics."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import TinyCohort
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fmct
from fmct.cli import main
from fmct.evaluation.knn import knn_scores
from fmct.evaluation.logistic import fit_logistic
from fmct.evaluation.probes import (
    Labeled,
    ProbeConfig,
    Trial,
    best,
    by_cross_validation,
    on_validation,
    scores,
    split_by_patient,
)
from fmct.experiment.loading import load_experiment
from fmct.experiment.probing import fit_probe
from fmct.fit import fit
from fmct.models.probe_heads import KNNHead, KNNHeadConfig, LogisticHead, LogisticHeadConfig

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
SMOKE = EXPERIMENTS / "classify_smoke.yaml"


def synthetic(scans: int = 80, seed: int = 0) -> Labeled:
    """Features of unlike scales and a constant one, two labels that depend on them, a third of the second unknown."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(scans, 6)) * [1, 1e-3, 50, 1, 1, 0] + [0, 5, -200, 0, 0, 7]
    first = features[:, 0] + rng.normal(size=scans) > 0.4
    second = (features[:, 1] - 5) * 1e3 + rng.normal(size=scans) > 0
    targets = np.stack([first, second], 1).astype(np.float32)
    targets[::3, 1] = np.nan
    patients = np.array([f"p{number // 2}" for number in range(scans)], object)
    return Labeled(features.astype(np.float32), targets, targets.astype(np.float64), patients)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("c", [0.01, 10.0])
def test_logistic_regression_is_scikit_learns(balanced: bool, c: float) -> None:
    train, asked = synthetic(), synthetic(20, seed=1).features
    fitted = fit_logistic(train.features, train.targets, c, balanced)
    assert fitted.unconverged == ()
    head = LogisticHeadConfig(c=c).build(6, 2)
    assert isinstance(head, LogisticHead)
    head.set(fitted.mean, fitted.scale, fitted.weight, fitted.bias)
    ours = torch.sigmoid(head(torch.from_numpy(asked)[:, None])).detach().numpy()
    for label, target in enumerate(train.targets.T):
        known = ~np.isnan(target)
        scaler = StandardScaler().fit(train.features.astype(np.float64))  # of all scans: that needs no label
        model = LogisticRegression(C=c, max_iter=5000, tol=1e-6, class_weight="balanced" if balanced else None)
        model.fit(scaler.transform(train.features[known].astype(np.float64)), target[known])
        theirs = make_pipeline(scaler, model).predict_proba(asked.astype(np.float64))[:, 1]
        np.testing.assert_allclose(ours[:, label], theirs, atol=1e-5)
        np.testing.assert_allclose(fitted.probabilities(asked)[:, label], theirs, atol=1e-9)


def test_a_share_of_readers_is_so_much_of_a_positive() -> None:
    train = synthetic()
    shares = np.where(train.targets == 1, 2 / 3, train.targets)
    soft = fit_logistic(train.features, shares, 1.0, balanced=False)
    target = shares[:, 0]
    x = StandardScaler().fit_transform(train.features.astype(np.float64))
    thrice = np.concatenate([np.repeat(x, 3, axis=0)])
    votes = np.concatenate([[1, 1, 0] if share > 0 else [0, 0, 0] for share in target])
    model = LogisticRegression(C=1.0, max_iter=5000, tol=1e-8)
    model.fit(thrice, votes, sample_weight=np.full(len(votes), 1 / 3))
    np.testing.assert_allclose(soft.weight[0], model.coef_[0], atol=2e-3)


def test_the_neighbors_head_says_what_the_callback_says() -> None:
    train, asked = synthetic(), synthetic(20, seed=1).features
    config = KNNHeadConfig(k=7, temperature=0.1, scans=80)
    head = config.build(6, 2)
    assert isinstance(head, KNNHead)
    head.set(train.features, train.targets)
    ours = torch.sigmoid(head(torch.from_numpy(asked)[:, None]).float()).numpy()
    for label, target in enumerate(train.targets.T):
        theirs = knn_scores(train.features, target, asked, 7, 0.1)
        np.testing.assert_allclose(ours[:, label], theirs, atol=1e-5)
    unanimous = torch.ones(80, 2)
    head.targets.copy_(unanimous)
    assert torch.sigmoid(head(torch.from_numpy(asked)[:, None]).float()).eq(1).all()


def test_pooling_is_what_the_head_is_given() -> None:
    tokens = torch.randn(3, 1 + 2 + 5, 4)
    head = LogisticHeadConfig(c=1.0, pooling="mean+max").build(4, 1, prefix_tokens=3)
    expected = torch.cat([tokens[:, 3:].mean(1), tokens[:, 3:].amax(1)], 1)
    torch.testing.assert_close(head(tokens), head.linear(expected))


def test_folds_share_no_patient_and_leave_out_unknown_labels() -> None:
    train = synthetic()
    second = Labeled(train.features, train.targets[:, 1:], train.truth[:, 1:], train.patients)
    asked = []
    for learn, ask in split_by_patient(second, 5, seed=0):
        assert not set(train.patients[learn]) & set(train.patients[ask])
        asked += ask.tolist()
    assert sorted(asked) == np.flatnonzero(~np.isnan(train.targets[:, 1])).tolist()
    again = [ask.tolist() for _, ask in split_by_patient(second, 5, seed=0)]
    assert [row for rows in again for row in rows] == asked
    other = [ask.tolist() for _, ask in split_by_patient(second, 5, seed=1)]
    assert other != again


def test_a_class_of_one_patient_cannot_be_cross_validated() -> None:
    train = synthetic(12)
    lonely = np.zeros((12, 1))
    lonely[0] = 1
    one = Labeled(train.features, lonely, lonely, train.patients)
    trial = by_cross_validation("logreg", {"c": 1.0}, one, 5, 0, balanced=False)
    assert np.isnan(trial.mean)
    assert best([trial]) is None


def test_the_best_mean_wins_and_of_equals_the_smoothest() -> None:
    trials = [Trial({"c": c}, aurocs) for c, aurocs in ((0.1, (0.8, np.nan)), (1.0, (0.8, np.nan)), (10.0, (0.7, 0.8)))]
    winner = best(trials)
    assert winner is not None
    assert winner.candidate == {"c": 0.1}
    config = ProbeConfig(c=(1.0, 0.1), k=(5, 20), temperature=(0.1,))
    assert [one["c"] for one in config.candidates("logreg", 9)] == [0.1, 1.0]
    assert [one["k"] for one in config.candidates("knn", 99)] == [20, 5]
    assert [one["k"] for one in config.candidates("knn", 5)] == [5]  # there are no more neighbors


def test_neighbors_found_once_serve_every_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    train, asked = synthetic(), synthetic(20, seed=1).features
    candidates = ProbeConfig(k=(3, 9), temperature=(0.05, 0.5)).candidates("knn", 80)
    expected = [
        np.stack([knn_scores(train.features, t, asked, int(c["k"]), c["temperature"]) for t in train.targets.T], 1)
        for c in candidates
    ]
    monkeypatch.setattr("fmct.evaluation.knn.SIMILARITIES_AT_ONCE", 200)  # two or three scans at a time
    for said, theirs in zip(scores("knn", candidates, train, asked, balanced=False), expected, strict=True):
        np.testing.assert_allclose(said, theirs, atol=1e-12)


def test_validation_counts_scans_whose_label_is_known() -> None:
    train, val = synthetic(), synthetic(300, seed=2)
    (trial,) = on_validation("logreg", [{"c": 1.0}], train, val, balanced=False)
    assert trial.aurocs[0] > 0.7
    assert trial.aurocs[1] > 0.6
    lacking = Labeled(val.features, val.targets, np.stack([val.truth[:, 0], np.zeros(300)], 1), val.patients)
    (trial,) = on_validation("knn", [{"k": 5, "temperature": 0.1}], train, lacking, balanced=False)
    assert np.isnan(trial.aurocs[1])
    assert trial.mean == trial.aurocs[0]


# ---- through the command line


@pytest.fixture(scope="module")
def runs(tiny: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with pretrained weights."""
    folder = tmp_path_factory.mktemp("probe_runs")
    fit(load_experiment([EXPERIMENTS / "pretrain_mae_smoke.yaml"], flags(tiny, folder, "--trainer.max_steps", "3")))
    return folder


def flags(cohort: TinyCohort, runs: Path, *more: str) -> list[str]:
    return [
        *("--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--trainer.runs", str(runs)),
        *("--input.voxels", "24"),
        *more,
    ]


def probe(cohort: TinyCohort, runs: Path, mode: str, name: str, *more: str) -> Path:
    weights = str(runs / "pretrain_mae_smoke")
    given = flags(cohort, runs, "--task.mode", mode, "--task.weights", weights, "--name", name, *more)
    return fit(load_experiment([SMOKE], given))


def probabilities(run: Path, cohort: TinyCohort, *more: str) -> pd.DataFrame:
    assert main(["evaluate", str(run), "--data", str(cohort.manifest), "--bootstrap", "100", *more]) == 0
    frame = pd.read_parquet(run / "evaluations" / "manifest-test" / "predictions.parquet")
    return frame.set_index(["scan_id", "label"])["probability"]


@pytest.mark.parametrize("mode", ["logreg", "knn"])
def test_a_probe_is_a_run_like_any_other(
    runs: Path, tiny: TinyCohort, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = probe(tiny, runs, mode, mode, "--task.probe.pooling", "mean+max")
    assert "validation scans of 3 patients" in capsys.readouterr().out
    environment = json.loads((run / "environment.json").read_text())
    metrics = pd.read_csv(run / "metrics.csv")
    candidates = ProbeConfig().candidates("knn" if mode == "knn" else "logreg", 12)
    assert len(metrics) == len(candidates)
    chosen = metrics.loc[metrics["val/auroc"].idxmax()]
    key = "k" if mode == "knn" else "c"
    assert environment["probe"][key] == chosen[f"probe/{key}"]
    assert environment["finished"] is True
    package = fmct.load(run)
    assert package.config.labels == ("ICH", "MidlineShift")
    before, after = load_file(runs / "pretrain_mae_smoke" / "weights" / "model.safetensors"), package.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert "Hand it on only" in (run / "weights" / "MODEL_CARD.md").read_text() or mode == "logreg"

    said = probabilities(run, tiny)
    one_by_one = probabilities(run, tiny, "--batch-size", "1")
    np.testing.assert_allclose(said, one_by_one, atol=1e-6)
    assert main(["fit", "--config", str(SMOKE), *refit(tiny, runs, mode, "--task.probe.pooling", "mean+max")]) == 0
    assert "finished already" in capsys.readouterr().out
    assert main(["fit", "--config", str(SMOKE), *refit(tiny, runs, mode)]) == 2
    assert "task.probe.pooling: mean+max -> cls" in capsys.readouterr().err


def refit(cohort: TinyCohort, runs: Path, mode: str, *more: str) -> list[str]:
    return flags(
        cohort, runs, "--task.mode", mode, "--task.weights", str(runs / "pretrain_mae_smoke"), "--name", mode, *more
    )


def test_features_of_a_table_give_what_the_weights_give(runs: Path, tiny: TinyCohort, tmp_path: Path) -> None:
    weights = str(runs / "pretrain_mae_smoke")
    table = tmp_path / "features.parquet"
    assert main(["embed", str(tiny.cache), "--weights", weights, "--out", str(table)]) == 0
    frame = pd.read_parquet(table)
    shuffled = frame.sample(frac=1, random_state=0)[["scan_id", *reversed(frame.columns[1:])]]
    shuffled.to_parquet(tmp_path / "shuffled.parquet", index=False)
    for mode in ("logreg", "knn"):
        on_weights = probabilities(probe(tiny, runs, mode, f"{mode}_cls"), tiny)
        on_table = fit(experiment_on(table, tiny, runs, mode))
        said = probabilities(on_table, tiny)
        np.testing.assert_allclose(said, on_weights.loc[said.index], atol=1e-6)
        again = probabilities(on_table, tiny, "--features", str(tmp_path / "shuffled.parquet"))
        np.testing.assert_allclose(again, said, atol=1e-6)
    config = json.loads((on_table / "weights" / "config.json").read_text())
    assert config["backbone"] == {"kind": "features", "width": 96, "columns": list(frame.columns[1:])}
    assert config["input"] is None


def experiment_on(table: Path, cohort: TinyCohort, runs: Path, mode: str, **data: object) -> object:
    content = {
        "name": f"{mode}_table",
        "task": {"kind": "classifier", "mode": mode, "labels": ["ICH", "MidlineShift"]},
        "backbone": {"kind": "features"},
        "data": {"manifest": str(cohort.manifest), "features": [str(table)], "batch_size": 4, **data},
        "trainer": {"runs": str(runs)},
    }
    path = table.parent / f"{mode}.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_experiment([path])


def test_features_packages_read_no_scans(
    runs: Path, tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = random_table(tiny, tmp_path)
    run = fit(experiment_on(table, tiny, tmp_path / "runs", "logreg"))  # type: ignore[arg-type]
    assert main(["embed", str(tiny.cache), "--weights", str(run), "--out", str(tmp_path / "e.parquet")]) == 2
    assert "these weights read no scans" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--data", str(tiny.manifest), "--cache", str(tiny.cache)]) == 2
    assert "the run takes features, not scans" in capsys.readouterr().err
    with pytest.raises(fmct.console.errors.UsageError, match="take 5 features per scan"):
        fmct.load(run).tokens(torch.zeros(1, 3, 24, 24, 24))
    scans = probe(tiny, runs, "logreg", "on_scans")
    assert main(["evaluate", str(scans), "--data", str(tiny.manifest), "--features", str(table)]) == 2
    assert "the run takes scans, not features" in capsys.readouterr().err


def random_table(
    cohort: TinyCohort, folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame
) -> Path:
    manifest = pd.read_csv(cohort.manifest, dtype=str)
    values = np.random.default_rng(0).normal(size=(len(manifest), 5))
    frame = pd.DataFrame({"scan_id": manifest["scan_id"]} | {f"google_{i}": values[:, i] for i in range(5)})
    frame = change(frame)
    path = folder / "table.parquet"
    frame.to_parquet(path, index=False)
    return path


def test_scans_without_features_are_an_error_unless_left_out_by_word(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = random_table(tiny, tmp_path)
    run = fit(experiment_on(whole, tiny, tmp_path / "runs", "knn"))  # type: ignore[arg-type]
    (tmp_path / "part").mkdir()
    part = random_table(tiny, tmp_path / "part", lambda frame: frame.drop(index=[20, 22]))
    evaluate = ["evaluate", str(run), "--data", str(tiny.manifest), "--features", str(part), "--bootstrap", "100"]
    assert main(evaluate) == 2
    assert "2 of 6 scans are not in the table: scan020, scan022" in capsys.readouterr().err
    assert main([*evaluate, "--only-with-features"]) == 0
    assert "2 of 6 scans left out" in capsys.readouterr().err
    metrics = json.loads((run / "evaluations" / "manifest-test" / "metrics.json").read_text())
    assert metrics["labels"]["ICH"]["n_scans"] == 4
    assert metrics["data"]["scans_without_features"] == 2

    (tmp_path / "less").mkdir()
    less = random_table(tiny, tmp_path / "less", lambda frame: frame.drop(index=[0]))
    with pytest.raises(fmct.console.errors.UsageError, match="1 of 12 scans are not in the table: scan000"):
        fit(experiment_on(less, tiny, tmp_path / "r2", "logreg"))  # type: ignore[arg-type]
    fit(experiment_on(less, tiny, tmp_path / "r2", "logreg", only_with_features=True))  # type: ignore[arg-type]
    assert "1 scan left out" in capsys.readouterr().out


def test_without_a_validation_split_patients_are_cross_validated(
    runs: Path, tiny: TinyCohort, capsys: pytest.CaptureFixture[str]
) -> None:
    run = probe(tiny, runs, "logreg", "cv", "--data.val_splits", "[]", "--task.probe.folds", "3")
    assert "in cross-validation by patient over the training scans, of at most 3 folds" in capsys.readouterr().out
    assert pd.read_csv(run / "metrics.csv")["cv/auroc_ICH"].notna().all()


def test_few_shots_sites_and_random_weights(runs: Path, tiny: TinyCohort, capsys: pytest.CaptureFixture[str]) -> None:
    run = probe(tiny, runs, "logreg", "few", "--data.shots.label", "MidlineShift", "--data.shots.k", "2")
    assert json.loads((run / "environment.json").read_text())["scans"] == 4
    run = probe(tiny, runs, "knn", "one_site", "--data.sites", "site_a", "--task.labels", "ICH")
    assert "| site_a | 6 |" in (run / "weights" / "MODEL_CARD.md").read_text()
    heads = []
    for seed in ("1", "1", "2"):
        given = flags(tiny, runs, "--task.mode", "logreg", "--task.weights", "null", "--seed", seed, "--name", "random")
        package = fmct.load(fit_probe(load_experiment([SMOKE], given), fresh=True))
        heads.append(package.state_dict()["backbone.patch_embedding.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--data.sampling.kind", "balanced"], "use task.balance"),
        (["--data.max_bad_scans", "2"], "leaves out no scan"),
        (["--trainer.devices", "2"], "runs in one process"),
        (["--task.mode", "knn", "--task.balance", "pos_weight"], "nearest neighbors have none"),
        (["--task.mode", "knn", "--task.probe.whiten", "{}"], "task.probe.whiten has no part in mode knn"),
        (["--task.probe.k", "3"], "task.probe.k has no part in mode logreg"),
        (["--task.mode", "linear", "--task.probe.c", "3"], "task.probe is for mode logreg and knn"),
        (["--data.features", "x.parquet"], "give cache or features, not both"),
        (["--data.only_with_features"], "only_with_features goes with features"),
        (["--backbone.kind", "features"], "go together"),
    ],
)
def test_what_would_do_nothing_is_refused(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], expected: str
) -> None:
    if "features" in more:
        shutil.copy(SMOKE, tmp_path / "smoke.yaml")
        content = yaml.safe_load(SMOKE.read_text()) | {"backbone": {"kind": "features"}}
        (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(content))
        more = []
    config = tmp_path / "smoke.yaml" if (tmp_path / "smoke.yaml").exists() else SMOKE
    base = flags(tiny, tmp_path, "--task.mode", "logreg", "--task.weights", "null")
    assert main(["fit", "--config", str(config), *base, *more]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 3
    assert not (tmp_path / "classify_smoke").exists()


def test_labels_that_nothing_can_be_chosen_by(
    runs: Path, tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_csv(tiny.manifest, dtype=str, keep_default_na=False)
    frame.loc[frame["split"] == "val", "label:ICH"] = "0"
    frame.to_csv(tmp_path / "m.csv", index=False)
    cohort = TinyCohort(tmp_path / "m.csv", tiny.cache)
    base = ["fit", "--config", str(SMOKE), *refit(cohort, runs, "logreg", "--task.labels", "ICH", "--name", "stuck")]
    assert main(base) == 2
    assert "no label has enough patients of both classes among the validation scans" in capsys.readouterr().err
    assert main([*base, "--task.probe.c", "0.1"]) == 0
    assert "chosen: C 0.1, the only candidate" in capsys.readouterr().out
    frame.loc[frame["split"] == "train", "label:ICH"] = "1"
    frame.to_csv(tmp_path / "m.csv", index=False)
    assert main([*base, "--task.probe.c", "1", "--name", "one_class"]) == 2
    assert "0 negative training scans: nothing to learn from" in capsys.readouterr().err


def test_what_trains_in_steps_still_says_how_long(tmp_path: Path) -> None:
    content = yaml.safe_load(SMOKE.read_text())
    del content["optimizer"]
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(fmct.console.errors.UsageError, match="optimizer is missing"):
        load_experiment([tmp_path / "e.yaml"])
    assert load_experiment([tmp_path / "e.yaml"], ["--task.mode", "knn"]).optimizer is None
