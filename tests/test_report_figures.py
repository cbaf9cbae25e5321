"""Figures of the report: bands against a restatement, radar and embedding maps against what they mustn't show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from fmct.data.feature_table import read_features
from fmct.evaluation.confidence import Bootstrap
from fmct.evaluation.curve_bands import PLACES, curve_band, precision_heights, roc_heights
from fmct.evaluation.embedding_map import MOST_GROUPS, embedding_figure, group_colors, places_of
from fmct.evaluation.figures import Look
from fmct.evaluation.radar import radar_figure, radar_labels
from fmct.evaluation.summary import LabelMetrics, label_metrics

LOOKS = [Look("a", "#0072b2", (), "o"), Look("b", "#d55e00", (7, 3), "s")]
BOOTSTRAP = Bootstrap(replicates=100)


def scores(n: int, seed: int = 0, separation: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return targets, scores and patients of n scans, two scans a patient."""
    rng = np.random.default_rng(seed)
    target = np.repeat(rng.random(n // 2) < 0.3, 2).astype(float)
    return (
        target,
        np.round(rng.normal(separation * target), 1),
        np.repeat(np.arange(n // 2), 2).astype(str).astype(object),
    )


def result(target: np.ndarray, score: np.ndarray, patient: np.ndarray) -> LabelMetrics:
    rows = pd.DataFrame({"scan_id": np.arange(len(target)).astype(str), "patient_id": patient})
    return label_metrics(rows.assign(target=target, probability=score), BOOTSTRAP)


def cumulated(target: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count by brute force the positives and negatives at or above each distinct score."""
    cuts = np.unique(score)[::-1]
    return (
        np.array([(target[score >= cut] == 1).sum() for cut in cuts], float),
        np.array([(target[score >= cut] == 0).sum() for cut in cuts], float),
    )


def test_area_under_the_heights_is_that_of_the_curves() -> None:
    target, score, _ = scores(2000)
    true, false = cumulated(target, score)
    assert np.trapezoid(roc_heights(true, false), PLACES) == pytest.approx(roc_auc_score(target, score), abs=2e-3)
    ap = average_precision_score(target, score)
    assert precision_heights(true, false).mean() == pytest.approx(ap, abs=0.02)


def test_precision_at_the_left_end_is_that_of_the_first_positive() -> None:
    heights = precision_heights(np.array([0.0, 1.0, 2.0]), np.array([3.0, 3.0, 4.0]))
    assert heights[0] == pytest.approx(1 / 4)
    assert heights[-1] == pytest.approx(2 / 6)


@pytest.mark.parametrize("curve", ["roc", "pr"])
def test_bands_hold_the_curve_and_narrow_with_more_patients(curve: str) -> None:
    widths = []
    for n in (120, 1200):
        target, score, patient = scores(n, seed=1)
        band = curve_band(curve, target, score, patient)
        assert band is not None
        heights = (roc_heights if curve == "roc" else precision_heights)(*cumulated(target, score))
        inside = (band.low - 1e-9 <= heights) & (heights <= band.high + 1e-9)
        assert inside.mean() > 0.95
        widths.append((band.high - band.low).mean())
    assert widths[1] < 0.6 * widths[0]


def test_bands_resample_patients_not_scans() -> None:
    target, score, patient = scores(300, seed=2)
    score = np.repeat(score[::2], 2)  # both scans of a patient score alike: the second adds nothing
    clustered = curve_band("roc", target, score, patient)
    naive = curve_band("roc", target, score, np.arange(300).astype(str).astype(object))
    assert clustered is not None
    assert naive is not None
    assert (clustered.high - clustered.low).mean() > 1.2 * (naive.high - naive.low).mean()


def test_few_patients_get_no_band() -> None:
    target = np.array([1.0] * 4 + [0.0] * 30)
    assert curve_band("roc", target, np.arange(34.0), np.arange(34).astype(str).astype(object)) is None


def test_radar_needs_three_labels_and_every_run() -> None:
    full = {name: [result(*scores(80, seed)), result(*scores(80, seed + 9))] for seed, name in enumerate("xyz")}
    png = radar_figure(LOOKS, full)
    assert png is not None
    assert png.startswith(b"\x89PNG")
    undefined = result(np.zeros(20), np.arange(20.0), np.arange(20).astype(str).astype(object))
    gaps = full | {"y": [full["y"][0], None], "w": [full["x"][0], undefined]}
    assert radar_labels(gaps) == ["x", "z"]
    assert radar_figure(LOOKS, gaps) is None


def table(tmp_path: Path, n: int = 60) -> Path:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(n, 5)), columns=[f"e{i:04d}" for i in range(5)])
    frame["e0000"] += 8.0 * (np.arange(n) % 2)
    frame.insert(0, "scan_id", [f"{i:04d}" for i in range(n)])
    path = tmp_path / "e.parquet"
    frame.to_parquet(path)
    return path


def manifest_rows(n: int) -> pd.DataFrame:
    ids = [f"{i:04d}" for i in range(n)]
    return pd.DataFrame(
        {
            "scan_id": ids,
            "site": np.where(np.arange(n) % 2, "a", "b"),
            "manufacturer": "Maker",
            "model": [f"M{i % 9}" for i in range(n)],
            "label:ICH": np.where(np.arange(n) % 3 == 0, 1, np.where(np.arange(n) % 3 == 1, 0, np.nan)),
            "label:One": 1.0,
        }
    )


def test_map_keeps_neighbors_and_repeats(tmp_path: Path) -> None:
    features = read_features([table(tmp_path)]).frame
    assert list(features.index[:2]) == ["0000", "0001"]  # identifiers stay text
    places = places_of(features.to_numpy(), seed=1)
    assert np.array_equal(places, places_of(features.to_numpy(), seed=1))
    even = np.arange(60) % 2 == 0
    nearest = np.argsort(np.linalg.norm(places[:, None] - places[None], axis=2), 1)[:, 1]
    assert (even[nearest] == even).mean() > 0.95
    drawn = embedding_figure(features, manifest_rows(40))
    assert drawn is not None
    assert drawn[1] == 40
    assert embedding_figure(features, manifest_rows(5)) is None


def test_commonest_groups_are_named_and_gray_means_nothing_found() -> None:
    groups = pd.Series(["absent"] * 9 + ["present"] * 3 + ["unknown"])
    assert list(group_colors(groups)) == ["unknown", "absent", "present"]
    many = pd.Series([f"scanner {i}" for i in range(MOST_GROUPS + 3) for _ in range(i + 1)])
    assert "others" in group_colors(many)
    assert len(group_colors(many)) == MOST_GROUPS + 1
