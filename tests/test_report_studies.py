"""Studies in the report: what is said of few-shot curves and transfer matrices follows from their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fmct.cli import main
from fmct.console.errors import UsageError
from fmct.evaluation.confidence import Bootstrap
from fmct.evaluation.few_shot import FewShot, Shot, summarize_shots
from fmct.evaluation.seed_means import SeedMean
from fmct.evaluation.studies import divide, few_shot_rows, few_shot_sentences, transfer_figures
from fmct.evaluation.transfer import Transfer, TransferCell, TransferMean

SETTINGS = Bootstrap(replicates=200)
LABELS = ("ICH", "SDH")


def predictions(label: str, strength: float, seed: int) -> pd.DataFrame:
    """Return what a run says of 80 scans whose targets depend on the label alone."""
    target = np.random.default_rng(len(label)).random(80) < 0.4
    score = np.random.default_rng([seed, int(10 * strength)]).normal(strength * target)
    ids = [f"s{i:03d}" for i in range(80)]
    return pd.DataFrame(
        {"scan_id": ids, "patient_id": ids, "label": label, "target": target.astype(float)}
        | {"probability": 1 / (1 + np.exp(-score))}
    )


def few_shot(gain: float, strength: float = 0.3) -> FewShot:
    """Return a study in which `mae` beats scratch by a gain in separation, at k = 32 only."""
    there = {
        Shot(name, label, k, seed): predictions(label, strength + (gain if (name, k) == ("mae", 32) else 0), seed)
        for name in ("mae", "scratch")
        for label in LABELS
        for k in (8, 32)
        for seed in range(3)
    }
    skipped = {Shot("mae", "EDH", 8, 0): "EDH has 3 positive patients: 8 are needed"}
    return summarize_shots([*there, *skipped], there, skipped, {}, SETTINGS, "scratch")[0]


def transfer() -> Transfer:
    sites = ("site_a", "site_b")

    def place(row: str, column: str) -> dict[str, Any]:
        return {"train_site": row, "test_site": column, "own_site": row == column, "others": {}}

    def value(row: str, column: str) -> SeedMean:
        return SeedMean(mean=0.9 if row == column else 0.7, ci=(0.6, 0.95), n_seeds=1)

    pairs = [(row, column) for row in sites for column in sites]
    cells = [
        TransferCell(
            **place(*pair), label="ICH", auroc=value(*pair).mean, ci=value(*pair).ci, ap=None, ap_ci=None, reason="",
            auroc_over_seeds=value(*pair), ap_over_seeds=SeedMean(mean=None), n=40, n_patients=40, n_positive=12,
        )
        for pair in pairs
    ]  # fmt: skip
    means = [
        TransferMean(**place(*pair), labels=("ICH",), auroc=value(*pair), ap=SeedMean(mean=None)) for pair in pairs
    ]
    return Transfer(key="data.sites", cells=tuple(cells), mean=tuple(means), settings=SETTINGS)


def test_sentences_say_what_intervals_allow_and_no_more() -> None:
    won, open_ = few_shot_sentences(few_shot(2.5))
    assert won.startswith("mae is above scratch in mean AUROC over 2 labels (3 draws) at k = 32: +0.")
    assert open_.startswith("No difference between mae and scratch is shown in mean AUROC over 2 labels")
    assert "k = 8" in open_
    assert "includes" not in won
    (lost,) = [one for one in few_shot_sentences(few_shot(-2.5, 2.6)) if "below" in one]
    assert "mae is below scratch" in lost
    assert "−0." in lost


def test_table_has_every_label_and_says_why_a_cell_is_empty() -> None:
    table = few_shot_rows(few_shot(2.5))
    assert [label for label, _, _ in table] == ["Mean over labels", *LABELS, "EDH"]
    edh = table[-1][2][0]
    assert edh.initialization == "mae"
    assert edh.cells[0] == "n/a: EDH has 3 positive patients: 8 are needed"
    scratch = next(row for row in table[1][2] if row.initialization == "scratch")
    assert scratch.differences == ["", ""]


def test_heat_maps_are_drawn_for_the_mean_and_each_label() -> None:
    drawn = transfer_figures(transfer())
    assert [title for title, _ in drawn] == ["mean over labels", "ICH"]
    assert all(png.startswith(b"\x89PNG") for _, png in drawn)


def test_the_page_holds_studies_without_any_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "fewshot.json").write_text(few_shot(2.5).model_dump_json())
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "transfer.json").write_text(transfer().model_dump_json())
    page = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "few"), str(tmp_path / "sites"), "--out", str(page), "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["few_shot"][str(tmp_path / "few")]["baseline"] == "scratch"
    assert len(numbers["transfer"][str(tmp_path / "sites")]["cells"]) == 4
    html = page.read_text()
    assert html.count("mae is above scratch") == 2  # in the summary and in its section
    assert html.count("<img") == 3
    assert numbers["caveats"] == []  # there is no run to say anything of
    assert 'id="training"' not in html
    assert "0 runs, 0 evaluated data sets, 2 studies" in html
    assert "http" not in html.replace("http-equiv", "")


def test_a_damaged_study_is_named(tmp_path: Path) -> None:
    (tmp_path / "fewshot.json").write_text('{"shots": 3}')
    with pytest.raises(UsageError, match="isn't laid out as this version writes it"):
        divide([tmp_path])
