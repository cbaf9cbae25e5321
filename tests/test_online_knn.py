"""Nearest neighbors while training: the figure is right, and training doesn't notice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TIMED, TinyCohort, make_cohort
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from test_nan_guard import arguments

import fmct
from fmct.data.volumes import VolumeCache
from fmct.evaluation.knn import knn_aurocs, knn_scores
from fmct.fit import main

STEPS = ("--data.batch_size", "4", "--trainer.max_epochs", "3", "--backbone.drop_path", "0.2")


def test_scores_equal_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    bank, query = rng.normal(size=(40, 8)), rng.normal(size=(15, 8))
    labels = rng.integers(0, 2, 40).astype(float)
    labels[5:10] = np.nan
    known = ~np.isnan(labels)
    reference = KNeighborsClassifier(7, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    reference.fit(bank[known], labels[known])
    ours = knn_scores(3.0 * bank.astype(np.float32), labels, query.astype(np.float32), 7)
    np.testing.assert_allclose(ours, reference.predict_proba(query)[:, 1], atol=1e-5)
    everyone = knn_scores(bank, labels, query, 99)
    weights = np.exp(
        (query / np.linalg.norm(query, axis=1)[:, None])
        @ (bank[known] / np.linalg.norm(bank[known], axis=1)[:, None]).T
        / 0.07
    )
    np.testing.assert_allclose(everyone, weights @ labels[known] / weights.sum(1))


def test_a_label_that_lacks_a_class_has_no_auroc() -> None:
    rng = np.random.default_rng(1)
    bank, query = rng.normal(size=(20, 4)), rng.normal(size=(9, 4))
    bank_labels = rng.integers(0, 2, (20, 2)).astype(float)
    query_labels = np.stack([np.arange(9) % 2.0, np.ones(9)], 1)
    query_labels[0, 0] = np.nan
    first, second = knn_aurocs(bank, bank_labels, query, query_labels, 5)
    expected = roc_auc_score(query_labels[1:, 0], knn_scores(bank, bank_labels[:, 0], query[1:], 5))
    assert first == pytest.approx(expected)
    assert np.isnan(second)


def knn_flags(cohort: TinyCohort, *more: str) -> list[str]:
    return [
        *("--callbacks.online_knn.manifest", str(cohort.manifest), "--callbacks.online_knn.labels", "ICH,MidlineShift"),
        *("--callbacks.online_knn.every_epochs", "2", "--callbacks.online_knn.k", "5", *more),
    ]


@pytest.mark.parametrize("task", ["mae", "dino"])
def test_training_is_the_same_with_and_without_and_the_figure_is_right(
    tiny: TinyCohort, tmp_path: Path, task: str
) -> None:
    for name, more in (("with", knn_flags(tiny)), ("without", [])):
        assert main(arguments(tiny, tmp_path / name, task, *STEPS, *more)) == 0
    folders = [tmp_path / name / f"pretrain_{task}_smoke" for name in ("with", "without")]
    weights = [(folder / "weights" / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]
    looked, plain = (pd.read_csv(folder / "metrics.csv") for folder in folders)
    knn = [name for name in looked if name.startswith("knn/")]
    pd.testing.assert_frame_equal(looked.drop(columns=[*knn, *TIMED]), plain.drop(columns=TIMED))

    values = looked.set_index("step")[["knn/auroc", "knn/auroc_ICH", "knn/auroc_MidlineShift"]].dropna()
    assert values.index.tolist() == [5, 8]  # after two epochs of three steps, and at the end
    model = fmct.load(folders[0])
    frame = pd.read_csv(tiny.manifest)
    cache = VolumeCache.open(tiny.cache)
    hu = torch.stack([torch.from_numpy(cache.read(scan))[None] for scan in frame["scan_id"]])
    features = model.features(hu).numpy()
    bank, query = (frame["split"] == split for split in ("train", "val"))
    for label in ("ICH", "MidlineShift"):
        target = frame[f"label:{label}"].to_numpy(float)
        known = ~np.isnan(target[query])
        scores = knn_scores(features[bank], target[bank], features[query][known], 5)
        expected = roc_auc_score(target[query][known], scores)
        assert values[f"knn/auroc_{label}"].iloc[-1] == pytest.approx(expected, abs=1e-6)
    assert values["knn/auroc"].iloc[-1] == pytest.approx(values.iloc[-1, 1:].mean(), abs=1e-6)


def test_scans_that_do_not_fit_are_refused_before_training(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(cohort: TinyCohort, *more: str) -> str:
        assert main(arguments(tiny, tmp_path / "runs", "mae", *STEPS, *knn_flags(cohort, *more))) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 3
        return error

    cohort = make_cohort(tmp_path / "labeled")
    frame = pd.read_csv(cohort.manifest, dtype=str)
    frame.assign(patient_id=frame["patient_id"].where(frame.index > 0, "patient008")).to_csv(cohort.manifest)
    assert "in two splits" in refused(cohort)
    frame.assign(**{"label:ICH": "1"}).to_csv(cohort.manifest, index=False)
    assert "label ICH has 12 positive and 0 negative scans in bank_splits" in refused(cohort)
    frame.to_csv(cohort.manifest, index=False)
    assert "is both in the bank and asked about" in refused(cohort, "--callbacks.online_knn.query_splits", "train")
    other = make_cohort(tmp_path / "other", side=16)
    cache = ("--callbacks.online_knn.cache", str(other.cache))
    assert "other preprocessing" in refused(cohort, *cache)
    assert not (tmp_path / "runs").exists()
