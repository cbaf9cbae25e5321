"""Views: windows, sampling and intensity changes, applied exactly and drawn from the right distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from fmct.console.errors import UsageError
from fmct.views import straight
from fmct.views.crops import Crop, CropConfig
from fmct.views.head_box import head_box
from fmct.views.spatial import sample
from fmct.views.windows import BONE, BRAIN, Window, windows


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, index]) for index in range(count)]


def smooth_volumes(batch: int, side: int = 24) -> torch.Tensor:
    noise = np.random.default_rng(0).normal(size=(batch, 1, side, side, side))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 2, 2, 2)) * 2000
    return torch.from_numpy(smooth.astype(np.int16))


def crop(share: float = 1.0, rotation: tuple[float, ...] = (0, 0, 0), *, flip: bool = False) -> Crop:
    """A crop of one scan, in the middle of its box."""
    f64 = torch.float64
    return Crop(
        torch.tensor([share], dtype=f64), torch.full((1, 3), 0.5, dtype=f64),
        torch.tensor([rotation], dtype=f64), torch.tensor([flip]),
    )  # fmt: skip


def box(*extents: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([extents])


def slightly_turned(c: Crop) -> Crop:
    """The same crop, to be sampled as those are that are turned."""
    return Crop(c.share, c.where_zyx, c.rotation_deg_zyx + 1e-7, c.flip)


# -- windows ----------------------------------------------------------------------------------------------------------


def test_windows_scale_and_clip() -> None:
    hu = torch.tensor([-1024, 0, 40, 80, 3000], dtype=torch.int16).view(1, 1, 1, 1, 5)
    brain, bone = windows(hu, [BRAIN, BONE])[0, :, 0, 0]
    assert brain.tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert bone.tolist() == pytest.approx([0, 800 / 2800, 840 / 2800, 880 / 2800, 1])


def test_window_refuses_zero_width() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        Window(level_hu=40, width_hu=0)


# -- sampling ---------------------------------------------------------------------------------------------------------

BOTH_WAYS = pytest.mark.parametrize("way", [lambda c: c, slightly_turned], ids=["straight", "turned"])


@BOTH_WAYS
def test_the_whole_view_is_the_volume(way: type) -> None:
    hu = smooth_volumes(1)
    torch.testing.assert_close(sample(hu, way(crop()), 24), hu.float(), atol=0.05, rtol=0)


@BOTH_WAYS
def test_flip_mirrors_left_and_right_only(way: type) -> None:
    hu = smooth_volumes(1)
    torch.testing.assert_close(sample(hu, way(crop(flip=True)), 24), hu.float().flip(4), atol=0.05, rtol=0)


@BOTH_WAYS
def test_crop_is_the_subvolume(way: type) -> None:
    hu = smooth_volumes(1)
    where = box((0, 1), (-1, 0), (-0.5, 0.5))  # z high, y low, x in the middle
    view = sample(hu, way(crop(0.5)), 12, boxes=where)
    torch.testing.assert_close(view, hu[:, :, 12:, :12, 6:18].float(), atol=0.05, rtol=0)


@BOTH_WAYS
def test_finer_views_interpolate_linearly(way: type) -> None:
    hu = smooth_volumes(1)
    view = sample(hu, way(crop(0.5, flip=True)), 18, boxes=box((-0.9, 0.2), (-0.4, 0.7), (-0.1, 0.6)))
    middles = np.array([-0.35, 0.15, 0.25])
    at = [(m + 0.5 * ((2 * np.arange(18) + 1) / 18 - 1) + 1) * 12 - 0.5 for m in middles]
    grid = np.meshgrid(at[0], at[1], at[2][::-1], indexing="ij")
    expected = ndimage.map_coordinates(hu[0, 0].double().numpy(), grid, order=1)
    np.testing.assert_allclose(view[0, 0].numpy(), expected, atol=0.1)


@BOTH_WAYS
def test_outside_the_volume_is_air(way: type) -> None:
    hu = torch.zeros(1, 1, 8, 8, 8, dtype=torch.int16)
    view = sample(hu, way(crop()), 8, boxes=box((-1, 1), (-1, 1), (0, 2)))
    assert view[..., :4].abs().max() < 0.05
    assert (view[..., 4:] == -1024).all()
    beyond = sample(hu, way(crop(0.5)), 8, boxes=box((3, 5), (-1, 1), (-1, 1)))
    assert (beyond == -1024).all()


def test_rotation_agrees_with_scipy() -> None:
    hu = smooth_volumes(1)
    ours = sample(hu, crop(rotation=(10.0, 0, 0)), 24)[0, 0]
    theirs = ndimage.rotate(hu[0, 0].double().numpy(), 10, axes=(2, 1), reshape=False, order=1)
    inner = slice(6, 18)
    difference = np.abs(ours.numpy() - theirs)[inner, inner, inner]
    assert difference.max() < 0.02 * np.abs(theirs).max()


def test_coarse_turned_views_average_and_keep_the_mean() -> None:
    hu = torch.randint(-1000, 1000, (1, 1, 24, 24, 24), dtype=torch.int16)
    view = sample(hu, slightly_turned(crop()), 8)
    blocks = hu.float().view(8, 3, 8, 3, 8, 3).mean((1, 3, 5))
    torch.testing.assert_close(view[0, 0], blocks, atol=1e-2, rtol=0)


@pytest.mark.parametrize("voxels", [7, 16, 20, 23])
def test_coarse_straight_views_are_anti_aliased_as_torch_does(voxels: int) -> None:
    hu = torch.randint(-1000, 1000, (1, 1, 24, 24, 24), dtype=torch.int16)
    expected = hu[0, 0].float()
    for _ in range(3):  # torch knows two axes; turn them until all had their turn
        sides = (voxels, expected.shape[2])
        expected = F.interpolate(expected[None], sides, mode="bilinear", antialias=True)[0].permute(2, 0, 1)
    torch.testing.assert_close(sample(hu, crop(), voxels)[0, 0], expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("share", [0.3, 0.45, 0.75, 0.99])
def test_straight_views_keep_constants_and_ramps(share: float) -> None:
    side, voxels = 36, 16
    z, y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.int16)] * 3, indexing="ij")
    ramp = (10 * z - 7 * y + 4 * x + 30)[None, None]
    where = box((-0.6, 0.5), (-0.2, 0.4), (-0.3, 0.7)) if share < 0.5 else None
    view = sample(ramp, crop(share), voxels, boxes=where)[0, 0]
    middle = torch.tensor([-0.05, 0.1, 0.2] if share < 0.5 else [0.0, 0.0, 0.0]).view(3, 1)
    at = (middle + share * ((2 * torch.arange(voxels) + 1) / voxels - 1) + 1) * side / 2 - 0.5
    expected = 10 * at[0].view(-1, 1, 1) - 7 * at[1].view(1, -1, 1) + 4 * at[2] + 30
    inner = (slice(2, -2),) * 3
    step = share * side / voxels
    wave = 0.05 if step <= 1 else 21 * step * 0.09  # a triangle sampled at whole voxels is off by a share of its width
    torch.testing.assert_close(view[inner], expected[inner], atol=wave, rtol=0)
    constant = torch.full((1, 1, side, side, side), 37, dtype=torch.int16)
    inside = sample(constant, crop(share), voxels)[0, 0][inner]
    torch.testing.assert_close(inside, torch.full_like(inside, 37), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("voxels", "left"), [(12, 0.0), (16, 1 / 9), (24, 0.0), (31, 0.17), (36, 0.28)])
def test_the_finest_pattern_does_not_alias(voxels: int, left: float) -> None:
    pattern = torch.tensor([500, -500], dtype=torch.int16).repeat(24).view(1, 1, 1, 1, 48).expand(1, 1, 48, 48, 48)
    inner = (slice(2, -2),) * 3
    view = sample(pattern, crop(), voxels)[0, 0][inner]
    assert view.abs().max() <= 500 * left + 0.1


def test_batched_views_equal_one_by_one() -> None:
    hu = smooth_volumes(5, side=36)  # some are turned, some are not; some are coarser than the volume, some are not
    config = CropConfig(share=(0.2, 0.9), rotation_probability=0.5)
    together = config.draw(generators(5))
    assert 0 < together.turned.sum() < 5
    sigma = torch.tensor([0.0, 0.6, 0.0, 0.9, 0.3])
    boxes = head_box(hu)
    views = sample(hu, together, 12, boxes=boxes, blur_voxels=sigma)
    for index, generator in enumerate(generators(5)):
        one = slice(index, index + 1)
        alone = sample(hu[one], config.draw([generator]), 12, boxes=boxes[one], blur_voxels=sigma[one])
        assert torch.equal(alone[0], views[index])


def test_large_products_equal_blocks() -> None:
    """What a GPU does with a batch is what a CPU does scan by scan."""
    hu = smooth_volumes(3, side=40)
    drawn = CropConfig(share=(0.2, 0.9), rotation_probability=0).draw(generators(3))
    for voxels in (12, 33):
        center = drawn.center_zyx(head_box(hu))
        at = straight.positions(drawn, center, 40, voxels)
        matrices = straight.triangles(at, (drawn.share * 40 / voxels).clamp(min=1).float(), 40)
        expected = torch.empty(3, 1, voxels, voxels, voxels)
        straight.multiply(hu, matrices, -1024, expected)
        views = sample(hu, drawn, voxels, boxes=head_box(hu))
        torch.testing.assert_close(views, expected - 1024, atol=2e-3, rtol=0)


def test_scans_of_a_batch_are_worked_on_together_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    hu = smooth_volumes(7, side=36)
    drawn = CropConfig(share=(0.2, 0.9), rotation_probability=0.5).draw(generators(7))
    expected = sample(hu, drawn, 12)
    monkeypatch.setattr("fmct.views.spatial.scans_at_once", lambda _: 3)
    torch.testing.assert_close(sample(hu, drawn, 12), expected, atol=1e-3, rtol=0)


@BOTH_WAYS
def test_smoothing_within_sampling_is_smoothing_after_it(way: type) -> None:
    hu = smooth_volumes(1, side=40)
    for share, voxels in ((0.9, 30), (0.5, 24)):
        drawn = way(crop(share))
        smoothed = sample(hu, drawn, voxels, blur_voxels=torch.tensor([0.8]))[0, 0].numpy()
        expected = ndimage.gaussian_filter(sample(hu, drawn, voxels)[0, 0].numpy(), 0.8, mode="nearest", radius=3)
        np.testing.assert_allclose(smoothed, expected, atol=0.05)


def test_products_are_exact_whatever_else_is_allowed() -> None:
    hu = smooth_volumes(1, side=40)
    drawn = CropConfig(share=(0.6, 0.9), rotation_probability=0).draw(generators(1))
    before = torch.get_float32_matmul_precision()
    expected = sample(hu, drawn, 20)
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(sample(hu, drawn, 20), expected)
        with straight.exact_products():
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision(before)


def test_sampling_leaves_float_volumes_as_they_are() -> None:
    hu = smooth_volumes(1).float()
    before = hu.clone()
    for drawn in (crop(), slightly_turned(crop(0.5))):
        sample(hu, drawn, 12)
        assert torch.equal(hu, before)


# -- where crops lie --------------------------------------------------------------------------------------------------


def test_the_head_is_found() -> None:
    hu = torch.full((3, 1, 20, 20, 20), -1024, dtype=torch.int16)
    hu[0, 0, 4:10, 3:16, 5:20] = 30
    hu[1, 0, 7, 8, 9] = -699
    hu[1, 0, 0, 0, 0] = -700  # is air
    in_voxels = ((head_box(hu) + 1) * 10).round(decimals=4)
    assert in_voxels[0].tolist() == [[4, 10], [3, 16], [5, 20]]
    assert in_voxels[1].tolist() == [[7, 8], [8, 9], [9, 10]]
    assert in_voxels[2].tolist() == [[0, 20], [0, 20], [0, 20]]  # nothing there: the whole volume


def test_crops_stay_inside_and_fill_their_range() -> None:
    drawn = CropConfig(share=(0.3, 0.8), rotation_deg=0, flip_probability=0.5).draw(generators(2000))
    assert 0.3 <= drawn.share.min() < 0.32
    assert 0.78 < drawn.share.max() <= 0.8
    assert (drawn.center_zyx().abs() + drawn.share[:, None] <= 1 + 1e-6).all()
    assert 0.45 < drawn.flip.float().mean() < 0.55
    assert not drawn.turned.any()


def test_crops_lie_on_the_head_and_are_centered_on_what_is_smaller() -> None:
    where = box((-0.9, 0.1), (-0.5, 0.5), (0.0, 0.6)).expand(2000, 3, 2)
    drawn = CropConfig(share=(0.2, 0.45)).draw(generators(2000))
    low, high = drawn.center_zyx(where) - drawn.share[:, None], drawn.center_zyx(where) + drawn.share[:, None]
    assert (low[:, 0] >= -0.9 - 1e-5).all()
    assert (high[:, 0] <= 0.1 + 1e-5).all()
    assert low[:, 0].min() < -0.88
    assert high[:, 0].max() > 0.08
    wider = drawn.share > 0.3  # than the head along x
    torch.testing.assert_close(drawn.center_zyx(where)[wider, 2], torch.full((int(wider.sum()),), 0.3))


def test_sizes_in_mm_are_shares_of_the_volume() -> None:
    drawn = CropConfig(side_mm=(110, 200)).draw(generators(500), volume_mm=216)
    assert 110 / 216 <= drawn.share.min() < 112 / 216
    assert 198 / 216 < drawn.share.max() <= 200 / 216
    with pytest.raises(UsageError, match="preset isotropic"):
        CropConfig(side_mm=(110, 200)).draw(generators(1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": (0.9, 0.5)}, "least"),
        ({"share": (0.5, 1.5)}, "greatest <= 1"),
        ({"side_mm": (200, 110)}, "least"),
        ({"share": (0.5, 1.0), "side_mm": (110, 200)}, "either share or side_mm"),
        ({"share": None}, "either share or side_mm"),
    ],
)
def test_one_range_of_sizes(values: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CropConfig.model_validate(values)


def test_mm_replace_the_default_share() -> None:
    config = CropConfig(side_mm=(110, 200))
    assert config.share is None
    assert CropConfig.model_validate(config.model_dump()) == config


def test_rotations_have_their_probability() -> None:
    drawn = CropConfig(rotation_deg=10, rotation_probability=0.3).draw(generators(2000))
    assert 0.26 < drawn.turned.float().mean() < 0.34
    assert 9.5 < drawn.rotation_deg_zyx.abs().max() <= 10
