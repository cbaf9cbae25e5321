"""What `fmct bench views` times is what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fmct.benchmarks import views
from fmct.benchmarks.published_views import published_crops, published_views
from fmct.data.phantom.scanner import Overrides


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> views.Heads:
    return views.make_heads(1, tmp_path_factory.mktemp("heads"), Overrides(pixel_mm=2, slice_mm=4))


def test_the_published_views_are_four_and_mostly_padding() -> None:
    volume = torch.ones(3, 96, 96, 96).half()
    made = published_views(volume)
    assert [tuple(view.shape) for view in made] == [(3, 96, 96, 96)] * 4
    assert all(view.dtype == torch.float32 for view in made)
    padding = np.mean([[views.share(view[0] < 0.5) for view in published_crops(volume)] for _ in range(4)], 0)
    assert padding[:2].mean() > 0.6
    assert padding[2:].mean() > 0.4


def test_ways_do_the_same_for_every_scan(heads: views.Heads) -> None:
    volumes = views.stacked([heads.ours[0].voxels])
    assert volumes.shape == (1, 1, 144, 144, 144)
    assert heads.published[0].shape == (3, 96, 96, 96)
    for recipe in views.RECIPES:
        made = views.every_view(recipe, volumes)
        sides = [96, 96] + [recipe.local_voxels] * recipe.locals
        assert [tuple(view.shape) for view in made] == [(1, 3, side, side, side) for side in sides]
    assert next(iter(views.ways_in_memory(heads))) == views.PUBLISHED
    for name, way in views.ways_from_files(heads).items():
        assert way() == 1, name


def test_our_views_show_heads(heads: views.Heads) -> None:
    volumes = views.stacked([heads.ours[0].voxels] * 6)
    no_head = [
        views.share(view[:, 2] <= views.NOT_HEAD) for view in views.every_view(views.RECIPES[1], volumes, changed=False)
    ]
    assert np.mean(no_head[:2]) < 0.5
    assert np.mean(no_head[2:]) < 0.3


def test_times_are_in_turns_against_the_published_chain(
    heads: views.Heads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "make_heads", lambda *_: heads)
    monkeypatch.setattr(views, "RECIPES", views.RECIPES[:2])
    monkeypatch.setattr(views, "shares", lambda _: ["shares"])
    threads = torch.get_num_threads()
    try:
        memory, files = views.measured(1, 1)
    finally:
        torch.set_num_threads(threads)
    assert [table.rows()[0]["ratio"] for table in (memory, files)] == [1, 1]
    assert [timing.name for timing in memory.timings] == [views.PUBLISHED, *(r.name for r in views.RECIPES)]
    assert memory.notes == ["shares"]
    assert len(files.timings) == 3
