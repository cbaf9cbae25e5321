"""Anomalies planted into views: where they lie, what they change, and that a scan's depend on no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fmct.views.anomalies import Anomaly, PlantingConfig, places_in

N = 24
MIDDLE = np.full(3, N // 2)
TISSUE_HU, BONE_HU = 30.0, 1000.0


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, scan]) for scan in range(count)]


def ball(radius_voxels: float, offset_hu: float = 20.0) -> Anomaly:
    """An anomaly with a sharp border, round, in the middle of a view that is soft everywhere."""
    return Anomaly(
        place=(np.ravel_multi_index(MIDDLE, (N, N, N)) + 0.5) / N**3,
        radii=np.full(3, radius_voxels / N),
        axes=np.eye(3),
        roughness=np.zeros((4, 4, 4)),
        sharpness=200.0,
        offset_hu=offset_hu,
        source=np.zeros(3),
        opacity=1.0,
    )


def heads(count: int = 3) -> torch.Tensor:
    """Balls of noisy soft tissue in bone, in air."""
    along = np.arange(N) - N / 2
    from_middle = np.sqrt((np.stack(np.meshgrid(along, along, along, indexing="ij")) ** 2).sum(0))
    hu = np.where(from_middle < 9, TISSUE_HU, np.where(from_middle < 11, BONE_HU, -1000.0))
    noisy = hu + np.random.default_rng(0).normal(0, 4, (count, 1, N, N, N))
    return torch.from_numpy(noisy).float()


def test_a_ball_is_as_large_and_as_bright_as_drawn() -> None:
    hu = torch.full((1, 1, N, N, N), TISSUE_HU)
    change = (PlantingConfig().plant(hu, [[ball(5.0)]]) - hu)[0, 0].numpy()
    distance = np.sqrt((((np.indices((N, N, N)).T - MIDDLE) ** 2).sum(-1)).T)
    np.testing.assert_allclose(change[distance < 4.8], 20, atol=1e-2)
    np.testing.assert_allclose(change[distance > 5.2], 0, atol=1e-2)


def test_an_ellipsoid_lies_along_its_own_axes() -> None:
    hu = torch.full((1, 1, N, N, N), TISSUE_HU)
    turned = np.array([[np.cos(0.6), -np.sin(0.6), 0], [np.sin(0.6), np.cos(0.6), 0], [0, 0, 1]])
    one = replace(ball(4.0), radii=np.array([8.0, 3.0, 5.0]) / N, axes=turned)
    change = (PlantingConfig().plant(hu, [[one]]) - hu)[0, 0].numpy()
    within = np.argwhere(change > 10) - MIDDLE
    spread, directions = np.linalg.eigh(np.cov(within.T))
    np.testing.assert_allclose(np.sqrt(5 * spread), [3, 5, 8], rtol=0.08)  # an ellipsoid's variance is r² / 5
    assert abs(directions[:, 2] @ turned[:, 0]) > 0.99
    assert abs(directions[:, 0] @ turned[:, 1]) > 0.99


def test_offsets_change_soft_tissue_alone() -> None:
    hu = heads()
    config = PlantingConfig(paste_probability=0.0, plain_probability=0.0)
    change = config.plant(hu, config.draw(generators(3))) - hu
    soft = (hu >= config.soft_hu[0]) & (hu <= config.soft_hu[1])
    assert (change[~soft] == 0).all()
    assert (change.abs().amax((1, 2, 3, 4)) > 5).all()
    assert change.abs().max() <= config.count[1] * config.offset_hu[1]


def test_pasted_tissue_is_that_of_the_place_it_is_from() -> None:
    ramp = torch.arange(N, dtype=torch.float32).reshape(N, 1, 1).expand(N, N, N)[None, None].contiguous()
    one = replace(ball(3.0, offset_hu=0.0), source=np.array([5, -2, 1]) / N, opacity=0.5)
    change = (PlantingConfig().plant(ramp, [[one]]) - ramp)[0, 0]
    assert change[tuple(MIDDLE)].item() == pytest.approx(0.5 * 5, abs=1e-3)
    assert change[0].abs().max() == 0


def test_a_scan_s_anomalies_do_not_depend_on_its_batch() -> None:
    hu, config = heads(), PlantingConfig(plain_probability=0.0)
    together = config.plant(hu, config.draw(generators(3)))
    for scan in range(3):
        alone = config.plant(hu[scan : scan + 1], config.draw(generators(3)[scan : scan + 1]))
        assert torch.equal(alone[0], together[scan])
    assert not torch.equal(together, hu)
    assert torch.equal(hu, heads())


def test_middles_are_anywhere_in_soft_tissue_and_views_without_any_stay_as_they_are() -> None:
    soft = torch.rand(4, 5, 6, 7, generator=torch.Generator().manual_seed(0)) > 0.7
    soft[2] = False
    shares = (0.0, 0.31, 0.999)
    drawn = [[replace(ball(2.0), place=share) for share in shares[: scan + 1]] for scan in range(4)]
    for scan, indices in enumerate(places_in(soft, drawn)):
        there = np.flatnonzero(soft[scan].numpy())
        assert indices == [there[int(one.place * len(there))] for one in drawn[scan] if len(there)]
    air = torch.full((1, 1, N, N, N), -1000.0)
    assert torch.equal(PlantingConfig().plant(air, [[ball(3.0)]]), air)


def test_what_is_drawn_is_spread_as_configured() -> None:
    config = PlantingConfig(count=(1, 3), plain_probability=0.25, paste_probability=0.4)
    drawn = config.draw(generators(2000))
    counts = np.bincount([len(scan) for scan in drawn], minlength=4) / 2000
    np.testing.assert_allclose(counts, [0.25, 0.25, 0.25, 0.25], atol=0.03)
    every = [one for scan in drawn for one in scan]
    assert np.mean([one.offset_hu == 0 for one in every]) == pytest.approx(0.4, abs=0.03)
    offsets = np.array([one.offset_hu for one in every if one.offset_hu])
    assert (offsets > 0).mean() == pytest.approx(0.5, abs=0.03)
    assert np.median(abs(offsets)) == pytest.approx(np.sqrt(8 * 50), rel=0.05)
    radii = np.array([one.radii for one in every])
    assert 0.042 <= radii.min() < 0.043
    assert 0.18 < radii.max() <= 0.19
    for one in every[:20]:
        np.testing.assert_allclose(one.axes.T @ one.axes, np.eye(3), atol=1e-12)


def test_cells_count_whose_mean_changed_enough() -> None:
    config = PlantingConfig()
    before = heads(2)
    after = before + torch.randn(before.shape, generator=torch.Generator().manual_seed(1)) * 12
    said = config.changes(before, after, 4, 2.0).numpy()
    change = np.clip(after.numpy(), -15, 90) - np.clip(before.numpy(), -15, 90)
    mean = change.reshape(2, 6, 4, 6, 4, 6, 4).mean((2, 4, 6))
    np.testing.assert_array_equal(said, np.stack([mean > 2, mean < -2], 1))
    assert 0.02 < said.mean() < 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": (3, 1)}, "the least, 3, is above the greatest, 1"),
        ({"radius": (0.0, 0.1)}, "the least must be above 0, not 0"),
        ({"offset_hu": (-5, 5)}, "the least must be above 0, not -5"),
        ({"soft_hu": (90, -15)}, "the least, 90, is above the greatest, -15"),
    ],
)
def test_contradictions_are_refused(wrong: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PlantingConfig(**wrong)  # type: ignore[arg-type]
