"""Surfaces in the page about a cache: their shape is the head's, and they are shown where no face may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from page_elements import Elements

from fmct.data.presets import IsotropicSettings
from fmct.data.rejection import RejectCode
from fmct.data.volumes import Volume, VolumeCache
from fmct.quality.page import Sources, make_page
from fmct.quality.surface import depth_mm, shaded, turned

SIDE, STEP_MM, RADIUS_MM = 48, 4.0, 70.0
AXIS_MM = (np.arange(SIDE) - (SIDE - 1) / 2) * STEP_MM


def ball(bump_at_mm: tuple[float, float, float] | None = None) -> np.ndarray:
    """Tissue with a linear edge, so that it ends exactly at the radius, maybe with a smaller ball; (Z, Y, X) int16."""
    z, y, x = np.meshgrid(AXIS_MM, AXIS_MM, AXIS_MM, indexing="ij")
    beyond = np.sqrt(z**2 + y**2 + x**2) - RADIUS_MM
    if bump_at_mm is not None:
        dz, dy, dx = bump_at_mm
        beyond = np.minimum(beyond, np.sqrt((z - dz) ** 2 + (y - dy) ** 2 + (x - dx) ** 2) - 12)
    return np.clip(-300 - 80 * beyond, -1024, 40).astype(np.int16)


def test_depth_is_that_of_the_ball() -> None:
    depth = depth_mm(ball(), STEP_MM)
    z, x = np.meshgrid(AXIS_MM, AXIS_MM, indexing="ij")
    from_axis = np.hypot(z, x)
    truth = AXIS_MM[-1] - np.sqrt(np.maximum(RADIUS_MM**2 - from_axis**2, 0))
    well_inside = from_axis < 50
    assert np.abs(depth - truth)[well_inside].max() < 0.3
    assert np.isnan(depth[from_axis > RADIUS_MM + STEP_MM]).all()


def test_a_nose_shows_in_front_and_where_turning_puts_it() -> None:
    nose = ball((0.0, RADIUS_MM, 0.0))
    nearest = np.unravel_index(np.nanargmin(depth_mm(nose, STEP_MM)), (SIDE, SIDE))
    assert np.abs(np.array(nearest) - SIDE / 2).max() <= 1
    sideways = depth_mm(turned(nose, 90.0), STEP_MM)
    from_side = depth_mm(turned(nose, -90.0), STEP_MM)
    ends = [np.flatnonzero(~np.isnan(depth[SIDE // 2]))[[0, -1]] for depth in (sideways, from_side)]
    assert [max(abs(end - SIDE / 2)) >= 19 for end in ends] == [True, True]
    assert np.sign(ends[0].mean() - SIDE / 2) == -np.sign(ends[1].mean() - SIDE / 2)


def test_what_faces_the_viewer_is_bright_and_nothing_is_black() -> None:
    picture = shaded(depth_mm(ball(), STEP_MM), STEP_MM)
    assert picture.dtype == np.uint8
    assert picture[SIDE // 2, SIDE // 2] > 150
    assert picture[0].max() == 0
    assert not shaded(np.full((4, 4), np.nan), 1.0).any()


@pytest.mark.parametrize("deface", [True, False])
def test_the_page_shows_faces_of_defaced_caches_only(tmp_path: Path, deface: bool) -> None:
    cache = VolumeCache.create(tmp_path, IsotropicSettings(spacing_mm=STEP_MM, shape_voxels=SIDE, deface=deface))
    cache.write("s1", Volume(ball(), np.diag([STEP_MM] * 3 + [1.0])))
    (tmp_path / "r1.nii").write_bytes(b"a scan with a face")
    cache.reject("r1", "r1.nii", RejectCode.NOT_DEFACED, "no brain")
    cache.save()
    page = Elements(make_page(Sources(cache, root=tmp_path), montage=4).html)
    assert ("turned by 35 degrees" in page.text) == deface
    assert ("its source may show a face" in page.text) == deface
