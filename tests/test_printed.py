"""metrics.json as text: nothing is wider than a terminal, and nothing undefined looks like a number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fmct.evaluation.facts import Facts, with_facts
from fmct.evaluation.operating_points import Thresholds, find_thresholds
from fmct.evaluation.printed import WIDTH, cell, printed
from fmct.evaluation.summary import Metrics, summarize
from fmct.evaluation.validation import without_thresholds

LONG = "a_label_with_a_name_that_is_much_too_long_for_its_column"


def predictions(seed: int, labels: tuple[str, ...] = ("ICH", LONG, "EDH")) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frames = []
    for label in labels:
        target = (np.arange(90) % 3 == 0).astype(float) * (label != "EDH")
        site = np.where(np.arange(90) % 2, "site_a", "site_b " * 12)
        gain = np.where(np.arange(90) % 2, 4.0, -1.0)
        frames.append(
            pd.DataFrame(
                {
                    "scan_id": [f"s{seed}-{i}" for i in range(90)],
                    "patient_id": [f"p{seed}-{i}" for i in range(90)],
                    "label": label,
                    "target": target,
                    "probability": 1 / (1 + np.exp(-generator.normal(size=90) - gain * target)),
                    "site": site,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def text_of(frame: pd.DataFrame) -> str:
    return printed(Metrics.model_validate(summarize(frame, bootstrap=100)))


def test_every_table_fits_a_terminal() -> None:
    validation = predictions(1)
    labels = {str(label): find_thresholds(rows) for label, rows in validation.groupby("label")}
    found = Thresholds(manifest="very/long/" * 20 + "m.csv", splits=("val",), sites=(), n_scans=90, labels=labels)
    text = text_of(with_facts(predictions(0), Facts(thresholds=found)))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "a_label_with_a_nam… " in text
    assert "n/a: only one class among 90 scans (all negative)" in text
    assert "fixed on 90 validation scans (split val of m.csv) for specificity 0.90" in text
    assert "4 subgroups by site" not in text  # EDH has rows too
    assert "6 subgroups by site (in metrics.json), 4 with enough patients" in text
    assert "4 differ from it, where about 0.2 would by chance:" in " ".join(text.split())
    assert "ICH, site site_a: AUROC" in text


def test_reasons_take_the_place_of_numbers() -> None:
    few = predictions(0, ("ICH",)).head(20)
    text = text_of(with_facts(few, Facts(thresholds=without_thresholds(None, "the run names none"))))
    assert "no sensitivity or specificity: the run names none" in text
    assert "none with enough patients to be compared with the rest" in text
    nothing = predictions(0, ("EDH",))
    assert "calibration" not in text_of(nothing)
    assert "threshold" not in text_of(nothing)


@pytest.mark.parametrize(
    ("value", "bounds", "expected"),
    [
        (0.9123, (0.8712, 0.9499), "0.912 (0.871 to 0.950)"),
        (None, None, "n/a"),
        (0.5, None, "0.500 (no interval)"),
        (-0.25, (-0.5, 0.1), "-0.250 (-0.500 to 0.100)"),
        (168.19, (-171.5, 9.5), "168 (-172 to 9.500)"),
    ],
)
def test_cells(value: float | None, bounds: tuple[float, float] | None, expected: str) -> None:
    assert cell(value, bounds) == expected
