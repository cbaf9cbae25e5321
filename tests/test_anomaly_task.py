"""Finding planted anomalies: the loss, the views, what is learned, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TinyCohort
from PIL import Image
from study_cohort import EXPERIMENTS

from fmct.console.errors import UsageError
from fmct.experiment.loading import load_experiment
from fmct.fit import fit
from fmct.models.cnn import ResNetConfig
from fmct.tasks.anomaly import AnomalyConfig, AnomalyTask, cell_loss
from fmct.tasks.setting import Setting

pytestmark = pytest.mark.usefixtures("one_thread")
NAME = "pretrain_anomaly_smoke"


def flags(cohort: TinyCohort, runs: Path, *more: str) -> list[str]:
    return [
        *("--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--trainer.runs", str(runs)),
        *("--input.voxels", "24", *more),
    ]


def task_of(cohort: TinyCohort, runs: Path, *more: str) -> AnomalyTask:
    experiment = load_experiment([EXPERIMENTS / f"{NAME}.yaml"], flags(cohort, runs, *more))
    assert isinstance(experiment.task, AnomalyConfig)
    assert experiment.optimizer is not None
    backbone = experiment.backbone.build(experiment.input.channels, experiment.input.voxels)
    setting = Setting(experiment.input, experiment.optimizer, 0, {"trainer": {"max_steps": 1}}, spacing_mm=3.0)
    return experiment.task.build(backbone, setting)


def test_the_loss_is_the_cross_entropy_over_cells_that_are_not_air() -> None:
    draw = np.random.default_rng(0)
    logits, changed, present = draw.normal(size=(3, 5, 4)), draw.random((3, 5, 4)) < 0.3, draw.random((3, 5)) < 0.6
    probability = 1 / (1 + np.exp(-logits))
    entropy = -np.where(changed, np.log(probability), np.log(1 - probability))
    loss = cell_loss(torch.from_numpy(logits).float(), torch.from_numpy(changed), torch.from_numpy(present))
    assert loss.item() == pytest.approx(np.mean([e[p].mean() for e, p in zip(entropy, present, strict=True)]), rel=1e-6)
    assert cell_loss(torch.zeros(1, 2, 3), torch.ones(1, 2, 3, dtype=torch.bool), torch.zeros(1, 2).bool()) == 0


def test_views_say_which_cells_were_changed(tiny: TinyCohort, tmp_path: Path) -> None:
    task = task_of(tiny, tmp_path)
    side, cell = task.setting.input.voxels, task.config.cell_voxels
    zyx = np.indices((side, side, side))
    head = np.where(((zyx - side / 2) ** 2).sum(0) < 100, 30.0, -1000.0)
    hu = torch.from_numpy(head).to(torch.int16)[None, None].expand(2, 1, -1, -1, -1)
    generators = [np.random.default_rng(scan) for scan in (3, 4)]
    batch = task.make_views({"hu": hu, "draws": []}, generators)
    patches = (side // 8) ** 3
    assert batch["x"].shape == (2, task.setting.input.channels, side, side, side)
    assert batch["changed"].shape == (2, patches, 2 * (8 // cell) ** 3)
    assert batch["changed"].any()
    assert not batch["changed"][~batch["present"]].any()
    one_by_one = [task.make_views({"hu": hu[:1], "draws": []}, [np.random.default_rng(scan)])["x"] for scan in (3, 4)]
    torch.testing.assert_close(torch.cat(one_by_one), batch["x"], rtol=0, atol=0)


def test_anomalies_are_found_after_some_steps(tiny: TinyCohort, tmp_path: Path) -> None:
    rates = ("--trainer.max_epochs", "40", "--optimizer.lr", "3e-3", "--trainer.validate_every_epochs", "40")
    easy = ("--task.anomalies.offset_hu", "[40, 50]", "--task.anomalies.paste_probability", "0")
    folder = fit(load_experiment([EXPERIMENTS / f"{NAME}.yaml"], flags(tiny, tmp_path, *rates, *easy)))
    metrics = pd.read_csv(folder / "metrics.csv")
    loss = metrics["train/loss"].dropna()
    assert loss.iloc[-30:].mean() < loss.iloc[:30].mean()
    assert metrics["val/auroc"].dropna().iloc[-1] > 0.7
    picture = np.asarray(Image.open(sorted((folder / "pictures").glob("anomalies_step*.png"))[-1]))
    assert picture.shape == (3 * 24, 3 * 3 * 24)
    assert {0, 255} <= set(np.unique(picture[24:48]))  # darker and brighter
    assert set(np.unique(picture[24:48])) <= {0, 127, 128, 255}


def test_what_it_cannot_do_is_refused(tiny: TinyCohort, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cells of 3 voxels don't divide patches of 8 x 8 x 8") as refused:
        task_of(tiny, tmp_path, "--task.cell_voxels", "3")
    assert refused.value.fix == "set it to 8 or a divisor of that"
    with pytest.raises(UsageError, match="anomaly needs a backbone of kind vit3d"):
        AnomalyConfig().build(ResNetConfig(depth=10).build(1, 24), task_of(tiny, tmp_path).setting)
    task = task_of(tiny, tmp_path)
    windowed = torch.zeros(1, task.setting.input.channels, 24, 24, 24, dtype=torch.float16)
    with pytest.raises(UsageError, match="anomalies are planted in HU"):
        task.make_views({"hu": windowed, "draws": []}, [np.random.default_rng(0)])
