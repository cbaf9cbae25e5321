"""The hit rate of maps on lesions, exactly, on maps and lesions that are known."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fmct.console.errors import UsageError
from fmct.data.lesion_masks import mask_folder, mask_on, masks_of
from fmct.data.own_grid import VoxelGrid
from fmct.evaluation.hit_rate import Hit, hit_rate, summarize_hits

SIDE = 20
HEAD = np.zeros((SIDE, SIDE, SIDE), bool)
HEAD[2:18, 2:18, 2:18] = True
LESION = np.zeros_like(HEAD)
LESION[10, 10, 10] = True
Z, Y, X = np.mgrid[:SIDE, :SIDE, :SIDE] - 10
DILATED = Z**2 + Y**2 + X**2 <= 3**2
CHANCE = DILATED.sum() / HEAD.sum()
PATCH = (3, 3, 3)


def test_a_map_on_the_lesion_hits_as_often_as_there_is_room() -> None:
    relevance = np.exp(-(Z**2 + Y**2 + X**2) / 8)
    rate, chance = hit_rate(relevance, LESION, HEAD, PATCH)
    count = round(0.05 * HEAD.sum())
    assert chance == pytest.approx(CHANCE)
    assert rate == pytest.approx(DILATED.sum() / count)  # 123 voxels of 205: the ball is smaller than the top 5 %
    rate, _ = hit_rate(relevance, LESION, HEAD, PATCH, share=100 / HEAD.sum())
    assert rate == 1.0


def test_a_map_elsewhere_never_hits() -> None:
    relevance = np.exp(-((Z + 6) ** 2 + (Y + 6) ** 2 + (X + 6) ** 2) / 8)
    assert hit_rate(relevance, LESION, HEAD, PATCH)[0] == 0


def test_a_constant_map_is_chance_whatever_the_order() -> None:
    rate, chance = hit_rate(np.ones(HEAD.shape), LESION, HEAD, PATCH)
    assert rate == pytest.approx(chance)
    assert chance == pytest.approx(CHANCE)


def test_ties_count_with_their_share() -> None:
    """A head of 40 voxels, the top 5 % are 2: one above, inside; then ten equal ones, of which four are inside."""
    head = np.ones((1, 1, 40), bool)
    lesion = np.zeros_like(head)
    lesion[..., :5] = True
    relevance = np.zeros(head.shape)
    relevance[..., 0] = 2
    relevance[..., 1:11] = 1
    rate, chance = hit_rate(relevance, lesion, head, (0.5, 0.5, 0.5))
    assert rate == pytest.approx((1 + 4 / 10) / 2)
    assert chance == pytest.approx(5 / 40)


def test_what_lies_outside_the_head_does_not_count() -> None:
    relevance = np.where(HEAD, np.exp(-(Z**2 + Y**2 + X**2) / 8), 100.0)
    inside = hit_rate(np.where(HEAD, relevance, 0), LESION, HEAD, PATCH)
    assert hit_rate(relevance, LESION, HEAD, PATCH) == inside


def test_flat_patches_dilate_less_across() -> None:
    _, chance = hit_rate(np.ones(HEAD.shape), LESION, HEAD, (1, 3, 3))
    assert chance == pytest.approx(((Z / 1) ** 2 + (Y / 3) ** 2 + (X / 3) ** 2 <= 1).sum() / HEAD.sum())


def hits(rates: list[float], patients: list[str], name: str = "relevance-IPH") -> list[Hit]:
    return [Hit(f"s{i}", p, name, "IPH", r, 0.1) for i, (r, p) in enumerate(zip(rates, patients, strict=True))]


def test_summary_is_a_ratio_of_means_with_an_interval_over_patients() -> None:
    rng = np.random.default_rng(0)
    rates = rng.uniform(0.2, 0.6, 40).tolist()
    singles = summarize_hits(hits(rates, [f"p{i}" for i in range(40)]))[0]
    assert singles["ratio"] == pytest.approx(np.mean(rates) / 0.1)
    assert (singles["n_scans"], singles["n_patients"]) == (40, 40)
    low, high = singles["ratio_ci"]
    assert low < singles["ratio"] < high
    standard_error = np.std(rates, ddof=1) / np.sqrt(40) / 0.1
    assert high - low == pytest.approx(2 * 1.96 * standard_error, rel=0.15)
    twice = summarize_hits(hits(rates * 2, [f"p{i}" for i in range(40)] * 2))[0]  # each scan of a patient twice over
    assert np.subtract(*twice["ratio_ci"]) == pytest.approx(np.subtract(*singles["ratio_ci"]), rel=1e-6)
    few = summarize_hits(hits([0.2, 0.3], ["a", "b"]))[0]
    assert few["ratio_ci"] is None
    assert "fewer than 5" in few["note"]
    assert summarize_hits([]) == []


def test_masks_are_found_by_the_end_of_a_path(tmp_path: Path) -> None:
    folder = mask_folder(tmp_path, "site_a/visit_1/A0001.nii.gz")
    assert folder == tmp_path / "site_a" / "visit_1" / "A0001"
    folder.mkdir(parents=True)
    (folder / "IPH.nii.gz").touch()
    for path in ("site_a/visit_1/A0001", "site_a/visit_1/A0001.nii.gz", "/x/cohort/site_a/visit_1/A0001.nii.gz"):
        assert masks_of(tmp_path, path) == {"IPH": folder / "IPH.nii.gz"}
    assert masks_of(tmp_path, "site_a/visit_1/A0002") == {}
    assert masks_of(tmp_path, "") == {}


def test_a_mask_comes_to_its_place_and_no_voxel_is_lost(tmp_path: Path) -> None:
    affine = np.array([[-1.0, 0, 0, 50], [0, 0.9, 0.3, -40], [0, -0.1, 5, -20], [0, 0, 0, 1]])
    values = np.zeros((30, 40, 12), np.uint8)
    values[7, 11, 4] = 1
    path = tmp_path / "IPH.nii.gz"
    nib.save(nib.Nifti1Image(values, affine), path)
    world = (affine @ [7, 11, 4, 1])[:3]
    grid = VoxelGrid(np.diag([4.0, 4.0, 4.0, 1.0]) + np.array([[0, 0, 0, -60]] * 3 + [[0] * 4]), (30, 30, 30))
    marked = mask_on(path, grid)
    assert np.argwhere(marked).tolist() == [np.rint((world + 60) / 4).astype(int)[::-1].tolist()]
    path.write_bytes(b"nothing")
    with pytest.raises(UsageError, match="not a readable mask"):
        mask_on(path, grid)
