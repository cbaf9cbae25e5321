"""How tasks make views: on the head, in mm, each scan by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fmct.console.errors import UsageError
from fmct.data.sharding import Draw
from fmct.experiment.optim import OptimizerConfig
from fmct.tasks.base import Batch, Setting, Task
from fmct.tasks.classifier import ClassifierConfig
from fmct.views.crops import CropConfig
from fmct.views.intensity import IntensityConfig
from fmct.views.network_input import InputConfig
from fmct.views.windows import BONE

SIDE = 40
CHANGES = IntensityConfig(gain=0.2, gamma=0.3, blur_voxels=0.6, noise_hu=10, window_shift_hu=5, window_width=0.2)


def task(voxels: int = 16, spacing_mm: float | None = 2.0) -> Task:
    return Task(Setting(InputConfig(voxels=voxels), OptimizerConfig(lr=1.0), 7, {}, spacing_mm))


def heads(scans: int) -> Batch:
    """Balls of tissue off the volume's middle, of which each has its place."""
    z, y, x = torch.meshgrid(*[torch.arange(SIDE)] * 3, indexing="ij")
    balls = [(z - 12 - i) ** 2 + (y - 26 + i) ** 2 + (x - 15) ** 2 < 81 for i in range(scans)]
    hu = torch.where(torch.stack(balls), 40, -1024) + torch.arange(SIDE)  # brighter to one side
    return {
        "hu": hu.to(torch.int16).unsqueeze(1),
        "index": torch.arange(scans),
        "draws": [Draw(row, epoch=3) for row in range(scans)],
    }


def view(of: Task, batch: Batch, crops: CropConfig, changes: IntensityConfig = CHANGES) -> torch.Tensor:
    return of.random_view(batch, of.generators(batch), crops, changes)


@pytest.mark.parametrize("crops", [CropConfig(rotation_probability=0.5), CropConfig(side_mm=(20, 60), rotation_deg=0)])
def test_a_scans_view_depends_on_no_batch_mate(crops: CropConfig) -> None:
    batch, sees = heads(5), task()
    together = view(sees, batch, crops)
    assert together.shape == (5, 3, 16, 16, 16)
    assert 0 <= together.min() < together.max() <= 1
    assert batch["head_box"].shape == (5, 3, 2)
    for row in (0, 3):
        alone = heads(5)
        alone = {name: values[row : row + 1] for name, values in alone.items()}
        assert torch.equal(view(sees, alone, crops)[0], together[row])


def test_crops_in_mm_have_their_size_and_lie_on_the_head() -> None:
    crops = CropConfig(side_mm=(16, 16), rotation_deg=0, flip_probability=0)
    still = IntensityConfig()
    for spacing_mm, voxels in ((2.0, 8), (1.0, 16)):  # a view as fine as the volume: its parts are the volume's
        shown = view(task(voxels, spacing_mm), heads(4), crops, still)
        assert (shown[:, 2] > 0.2).float().mean() > (0.6 if voxels == 8 else 0.3)
        step = shown[0, 2, voxels // 2].diff(dim=-1)  # one HU a voxel, in the bone window
        assert step.median() == pytest.approx(1 / BONE.width_hu, rel=0.01)
    anywhere = view(task(8), heads(4), crops.model_copy(update={"place": "volume"}), still)
    assert (anywhere[:, 2] > 0.2).float().mean() < 0.4


def test_what_volumes_without_hu_cannot_give_is_refused() -> None:
    batch = heads(2) | {"hu": torch.rand(2, 3, SIDE, SIDE, SIDE).half()}
    sees = task(spacing_mm=None)
    with pytest.raises(UsageError, match="crops in mm"):
        view(sees, batch, CropConfig(side_mm=(20, 40)), IntensityConfig())
    with pytest.raises(UsageError, match="noise in HU"):
        view(sees, batch, CropConfig(), CHANGES)
    assert view(sees, batch, CropConfig(), IntensityConfig(gain=0.2, blur_voxels=0.5)).shape == (2, 3, 16, 16, 16)


def test_views_differ_from_epoch_to_epoch_and_repeat_with_the_seed() -> None:
    crops, sees = CropConfig(), task()
    first = view(sees, heads(1), crops)
    assert torch.equal(view(task(), heads(1), crops), first)
    later = heads(1) | {"draws": [Draw(0, epoch=4)]}
    assert not torch.equal(view(sees, later, crops), first)


def test_the_classifier_draws_its_views() -> None:
    x = torch.rand(5, 3, 16, 16, 16)
    config = ClassifierConfig(labels=("ICH",), mode="scratch")

    class Backbone(torch.nn.Module):
        width = 8

    backbone: Any = Backbone()
    picture = config.build(backbone, task().setting).pictures({"x": x})["views"]
    assert picture.shape == (3 * 16, 3 * 3 * 16)  # windows below each other; three scans of three slices
    middle = x[1, 2, np.linspace(16 * 0.3, 16 * 0.7, 3).astype(int)[1]].flip(0).flip(1)
    assert torch.equal(picture[32:, 64:80], middle)
