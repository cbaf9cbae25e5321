"""Bleeds of phantoms: volume, density, place and side of what is painted, held against what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pytest
from scipy import ndimage

from fmct.data.phantom.anatomy import Anatomy
from fmct.data.phantom.bleeds import EDH, IPH, IVH, SAH, SDH, ChronicSDH
from fmct.data.phantom.bleeds.epidural import CORONAL, LAMBDOID, from_suture
from fmct.data.phantom.bleeds.intraventricular import FOURTH, LEFT, RIGHT, THIRD, chambers_of
from fmct.data.phantom.findings import BLEED_ON, Finding, draw_findings, labels_of, severities_of
from fmct.data.phantom.head import HeadParameters, Pose, draw_head
from fmct.data.phantom.masks import by_label, marked
from fmct.data.phantom.mass_effect import MidlineShift
from fmct.data.phantom.render import Grid, Rendering, render
from fmct.data.phantom.skull import VAULT_CENTER_MM, Skull

HEAD = HeadParameters(seed=5, ventricle_scale=1.4, gap_mm=2.0, sulcus_mm=1.0, detailed=True)
STEP_MM = 2.5
CAVITY = Grid((-78.0, -114.0, -60.0), STEP_MM, (61, 79, 64))  # holds the cavity of an average head at the origin
CSF_HU = 8.0


def upright(seed: int) -> HeadParameters:
    """Draw a plain head that lies straight at the origin."""
    return draw_head(np.random.default_rng(seed)).model_copy(update={"pose": Pose()})


@lru_cache(maxsize=8)
def rendered(head: HeadParameters, *findings: Finding) -> Rendering:
    return render(head, CAVITY, findings, couch=False)


def points_of(picture: Rendering, mask: np.ndarray) -> np.ndarray:
    """Return where voxels of a mask lie, (3, N) in patient coordinates."""
    z, y, x = np.nonzero(mask)
    grid = picture.grid
    return np.stack([grid.axis_mm(0)[x], grid.axis_mm(1)[y], grid.axis_mm(2)[z]])


@lru_cache(maxsize=8)
def depth_mm(head: HeadParameters) -> np.ndarray:
    """Return the depth of each voxel of `CAVITY` under the inner table, (Z, Y, X)."""
    z, y, x = np.meshgrid(*(CAVITY.axis_mm(axis) for axis in (2, 1, 0)), indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), z.ravel()])
    return -Skull(head).cavity(head.pose.to_head(points)).reshape(CAVITY.shape_zyx)


def off_bone(head: HeadParameters) -> np.ndarray:
    """Mark the voxels without any bone in them."""
    return depth_mm(head) > 0.5 * STEP_MM


def plain_hu(head: HeadParameters, points_mm: np.ndarray, findings: Sequence[Finding] = ()) -> np.ndarray:
    return Anatomy(head, findings).hu(head.pose.to_head(points_mm), STEP_MM)[0]


def draw(kind: type[Finding], seed: int, head: HeadParameters, others: Sequence[Finding] = ()) -> Finding:
    return kind.draw(np.random.default_rng(seed), head, others)


def test_the_kinds_that_there_were_are_drawn_as_before() -> None:
    rng = np.random.default_rng(3)
    head = draw_head(rng)
    iph, sdh = IPH.draw(rng, head, ()), SDH.draw(rng, head, ())
    assert iph.blob.center_mm == pytest.approx((-29.905653822496397, 25.922496805270725, 21.189096505173783))
    assert (iph.blob.volume_ml, iph.blood_hu) == pytest.approx((4.956362686354782, 71.9412877528991))
    assert (sdh.thickness_mm, sdh.blood_hu) == pytest.approx((4.6995366749323075, 63.968526898941874))
    assert sdh.side == -1


@pytest.mark.parametrize("kind", [IVH, EDH, SAH, ChronicSDH])
def test_drawing_is_deterministic_and_severe_by_its_own_column(kind: type[Finding]) -> None:
    first, again, other = (draw(kind, seed, HEAD) for seed in (3, 3, 4))
    assert first == again != other
    assert set(first.severity()) == set(kind.severity_names)
    assert first.positive()
    assert min(first.severity().values()) > 0


@pytest.mark.parametrize("kind", [EDH, ChronicSDH, IVH])
def test_a_quarter_is_subtle(kind: type[Finding]) -> None:
    drawn = [draw(kind, seed, HEAD) for seed in range(200)]
    subtle = {
        "EDH": lambda bleed: bleed.thickness_mm <= 5 and bleed.blood_hu <= 60,
        "ChronicSDH": lambda bleed: bleed.thickness_mm <= 7 and 28 <= bleed.blood_hu <= 36,
        "IVH": lambda bleed: bleed.severity()["IVH_ml"] < 1 and bleed.blood_hu <= 50,
    }[kind.name]
    assert np.mean([subtle(bleed) for bleed in drawn]) == pytest.approx(0.25, abs=0.08)
    assert max(max(bleed.severity().values()) for bleed in drawn) > 10
    right, left = (np.mean([side in bleed.sides() for bleed in drawn]) for side in (1, -1))
    assert right == pytest.approx(left, abs=0.2)
    assert 0.35 < right < 0.85


@pytest.mark.parametrize("seed", [1, 2, 4, 8])
def test_blood_fills_ventricles_by_its_volume_and_nothing_else(seed: int) -> None:
    head = upright(seed)
    bleed = draw(IVH, seed, head)
    picture = rendered(head, bleed)
    share = picture.lesions["IVH"]
    assert picture.volume_ml("IVH") == pytest.approx(bleed.severity()["IVH_ml"], rel=0.12)
    core = share > 0.98
    assert bleed.blood_hu - 11 <= picture.hu[core].min() <= picture.hu[core].max() <= bleed.blood_hu + 0.1
    np.testing.assert_allclose(plain_hu(head, points_of(picture, core)), CSF_HU, atol=1.5)
    x = points_of(picture, share > 0.3)[0]
    for side in bleed.sides():
        assert (np.sign(x) == side).sum() > 10


def test_a_sediment_is_level_and_lies_behind_whatever_the_pose() -> None:
    head = HEAD.model_copy(update={"pose": Pose(pitch_deg=14.0, roll_deg=5.0)})
    bleed = IVH(form="sediment", lateral_ml=(4.0, 2.0))
    blood = rendered(head, bleed).lesions["IVH"] > 0.5
    picture = rendered(head)
    fluid = picture.hu < 11
    sides = ndimage.label(ndimage.binary_dilation(blood))
    assert sides[1] == 2
    for number in (1, 2):
        y = points_of(picture, blood & (sides[0] == number))[1]
        # Fluid of the same ventricle, within 10 mm of the blood, begins where the blood ends.
        near = ndimage.binary_dilation(sides[0] == number, iterations=5) & fluid & ~blood & deep(head)
        above = points_of(picture, near)[1]
        assert above.min() >= y.max() - STEP_MM
        assert above.min() <= y.max() + 2 * STEP_MM


def deep(head: HeadParameters) -> np.ndarray:
    """Mark the voxels of `CAVITY` far from the skull, where all fluid is in ventricles or next to the midline."""
    return (depth_mm(head) > 26) & (np.abs(CAVITY.axis_mm(0)) > 8)


def test_a_clot_begins_at_the_rupture_and_goes_on_to_the_fourth_ventricle() -> None:
    capacity = chambers_of(HEAD).capacity_ml()
    bleed = IVH(
        form="clot",
        lateral_ml=(0.0, float(0.5 * capacity[LEFT])),
        third_ml=float(capacity[THIRD]),
        fourth_ml=float(capacity[FOURTH]),
        rupture_mm=(-8.0, 20.0, 12.0),
        blood_hu=64.0,
    )
    assert bleed.sides() == {-1}
    places = {
        (-8.5, 8.0, 17.0): 64.0,  # body of the left lateral ventricle, near the rupture
        (-24.0, -45.0, 10.0): CSF_HU,  # its atrium, far from it
        (8.5, 8.0, 17.0): CSF_HU,  # the right one
        (0.0, -10.0, 0.0): 64.0,  # third
        (0.0, -47.0, -27.0): 64.0,  # fourth
    }
    points = np.array(list(places), np.float32).T.copy()
    np.testing.assert_allclose(Anatomy(HEAD, [bleed]).hu(points, 0.5)[0], list(places.values()), atol=1.0)
    assert capacity[RIGHT] == pytest.approx(capacity[LEFT], rel=0.02)


def test_blood_in_ventricles_moves_with_them() -> None:
    bleed = IVH(form="clot", lateral_ml=(5.0, 5.0))
    shift = MidlineShift(shift_mm=10.0, toward=1)
    still, moved = rendered(HEAD, bleed), rendered(HEAD, shift, bleed)
    middle = [np.average(points_of(p, p.lesions["IVH"] > 0.5), axis=1) for p in (still, moved)]
    assert 6 < middle[1][0] - middle[0][0] < 11
    core = moved.lesions["IVH"] > 0.98
    np.testing.assert_allclose(plain_hu(HEAD, points_of(moved, core), [shift]), CSF_HU, atol=1.0)


def test_a_rupture_is_on_the_side_of_the_bleed_that_broke_in() -> None:
    for seed in range(12):
        iph, ivh = draw_findings(np.random.default_rng(seed), HEAD, ["IPH", "IVH"])
        assert isinstance(iph, IPH)
        assert isinstance(ivh, IVH)
        assert np.sign(ivh.rupture_mm[0]) == iph.side
        if ivh.form == "clot":
            assert iph.side in ivh.sides()


def thickness_along(anatomy: Anatomy, name: str, direction: np.ndarray) -> tuple[float, float]:
    """Return the thickness of a layer, mm, and the distance of its inner surface from the vault's center."""
    along = np.arange(30.0, 110.0, 0.1, dtype=np.float32)
    ray = np.array(VAULT_CENTER_MM, np.float32)[:, None] + direction[:, None] * along
    share = anatomy.hu(ray.astype(np.float32), 0.2)[1][name]
    inside = np.flatnonzero(share > 0.5)
    return float(share.sum()) * 0.1, float(along[inside[0]]) if inside.size else np.nan


@pytest.mark.parametrize(("side", "thickness_mm"), [(1, 8.0), (-1, 18.0)])
def test_edh_is_a_lens_of_its_thickness_that_bulges_inward(side: int, thickness_mm: float) -> None:
    angle = 14.0 + thickness_mm
    bleed = EDH(side=side, thickness_mm=thickness_mm, azimuth_deg=-10.0, half_length_deg=angle, half_height_deg=angle)
    anatomy = Anatomy(HEAD, [bleed])
    middle = bleed.direction
    thickness, inner = thickness_along(anatomy, "EDH", middle)
    assert thickness == pytest.approx(thickness_mm, rel=0.12)
    # Toward the rim, along the horizon: the chord between both ends lies outside of the inner surface's middle.
    forward = np.array([-middle[1], middle[0], 0.0]) / np.hypot(middle[0], middle[1])
    turns = np.radians(0.85 * bleed.half_length_deg) * np.array([-1.0, 1.0])
    ends = [np.cos(turn) * middle + np.sin(turn) * forward for turn in turns]
    rim = [thickness_along(anatomy, "EDH", end.astype(np.float32)) for end in ends]
    assert all(0.1 < thin / thickness < 0.5 for thin, _ in rim)
    chord = np.mean([(end * distance) @ middle for end, (_, distance) in zip(ends, rim, strict=True)])
    assert inner < chord - 0.2 * thickness_mm


def test_edh_stops_at_the_coronal_suture_and_does_not_lie_on_it() -> None:
    bleed = EDH(side=1, thickness_mm=14.0, azimuth_deg=12.0, elevation_deg=20.0, half_length_deg=38, half_height_deg=30)
    picture = rendered(HEAD, bleed)
    outward = points_of(picture, picture.lesions["EDH"] > 0.05) - np.array(VAULT_CENTER_MM)[:, None]
    outward = (outward / np.linalg.norm(outward, axis=0)).astype(np.float32)
    assert from_suture(CORONAL, outward).max() < 0.5  # behind the one
    assert from_suture(LAMBDOID, outward).min() > 0  # before the other
    # Where nothing holds the dura the lens would reach farther.
    free = np.abs(np.degrees(np.arctan2(outward[1], outward[0])) - bleed.azimuth_deg)
    assert free.max() > 30
    for seed in range(60):
        drawn = draw(EDH, seed, HEAD)
        assert isinstance(drawn, EDH)
        assert min(abs(from_suture(plane, drawn.direction[:, None])[0]) for plane in (CORONAL, LAMBDOID)) > 5


@pytest.mark.parametrize("kind", [EDH, ChronicSDH])
def test_layers_press_the_brain_and_leave_the_skull(kind: type[Finding]) -> None:
    bleed = next(one for one in (draw(kind, seed, HEAD) for seed in range(99)) if max(one.severity().values()) > 12)
    plain, picture = rendered(HEAD), rendered(HEAD, bleed)
    share = picture.lesions[kind.name]
    bone = plain.hu > 500
    np.testing.assert_allclose(plain.hu[bone], picture.hu[bone], atol=60)
    inside = -Anatomy(HEAD).skull.cavity(points_of(picture, share > 0.0))
    assert inside.min() > -STEP_MM
    assert (np.sign(points_of(picture, share > 0.1)[0]) == bleed.side).all()
    other = points_of(picture, np.abs(plain.hu - picture.hu) > 1)[0]
    assert (np.sign(other) == bleed.side).all()
    # The brain has given way, not been overlaid: its fluid and grey matter still lie between blood and white matter.
    under = ndimage.binary_dilation(share > 0.5, iterations=2) & (share == 0) & (picture.hu < 300)
    assert np.median(picture.hu[under]) > np.median(picture.hu[under & (plain.hu < 33)]) - 12
    tissue = ((picture.hu > 25) & (picture.hu < 45) & (share == 0)).sum() / ((plain.hu > 25) & (plain.hu < 45)).sum()
    assert 0.9 < tissue < 1.0


def test_an_old_subdural_is_as_dark_as_it_says_and_denser_at_the_back() -> None:
    bleed = ChronicSDH(side=-1, thickness_mm=14.0, blood_hu=20.0, sediment_hu=22.0, sediment_level=-0.2)
    picture = rendered(HEAD, bleed)
    core = (picture.lesions["ChronicSDH"] > 0.999) & off_bone(HEAD)
    y, hu = points_of(picture, core)[1], picture.hu[core]
    level = bleed.level_mm(HEAD)
    np.testing.assert_allclose(hu[y > level + 3], 20.0, atol=0.1)
    np.testing.assert_allclose(hu[y < level - 6], 42.0, atol=0.1)
    assert min((y > level + 3).sum(), (y < level - 6).sum()) > 200
    for seed in range(50):
        drawn = draw(ChronicSDH, seed, HEAD)
        assert isinstance(drawn, ChronicSDH)
        assert 15 <= drawn.blood_hu <= 40


@pytest.mark.parametrize(("seed", "pattern"), [(0, "sulci"), (1, "cisterns"), (2, "cisterns"), (3, "sulci")])
def test_blood_under_the_arachnoid_is_where_fluid_was_by_its_volume(seed: int, pattern: str) -> None:
    head = upright(seed + 2)
    drawn = (draw(SAH, attempt, head) for attempt in range(10 * seed, 10 * seed + 10))
    bleed = next(one for one in drawn if isinstance(one, SAH) and one.pattern == pattern)
    plain, picture = rendered(head), rendered(head, bleed)
    share = picture.lesions["SAH"]
    assert 0 <= share.min() < share.max() <= 1
    assert picture.volume_ml("SAH") == pytest.approx(bleed.severity()["SAH_ml"], rel=0.06)
    blood = (share > 0) & off_bone(head)
    mixed = plain.hu + share * (bleed.blood_hu - plain.hu)
    np.testing.assert_allclose(picture.hu[blood], mixed[blood], atol=0.01)
    # A voxel of which that share was fluid can't have been brighter than the rest of it, were it all dura.
    assert (plain.hu[blood] <= CSF_HU + (1 - share[blood]) * (53.0 - CSF_HU) + 0.5).all()
    assert share[blood].max() > 0.7
    # All else is as it was, and the sides that it names hold the blood.
    np.testing.assert_array_equal(picture.hu[share == 0], plain.hu[share == 0])
    right = (share * np.clip(CAVITY.axis_mm(0) / STEP_MM + 0.5, 0.0, 1.0)).sum() / share.sum()
    assert bleed.right_share == pytest.approx(right, abs=0.05)
    assert bleed.sides() == {side for side, part in ((1, right), (-1, 1 - right)) if part > 0.2}


def test_ventricles_and_a_subdural_stay_free_of_subarachnoid_blood() -> None:
    bleed = SAH(pattern="sulci", center_mm=(52.0, -17.0, 30.0), volume_ml=6.0, right_share=1.0, blood_hu=55.0)
    layer = SDH(side=1, thickness_mm=9.0, blood_hu=68.0)
    picture = rendered(HEAD, layer, bleed)
    core = (picture.lesions["SDH"] > 0.999) & off_bone(HEAD)
    np.testing.assert_allclose(picture.hu[core], 68.0, atol=0.5)
    assert picture.lesions["SAH"][core].max() < 0.02
    middle = SAH(pattern="cisterns", center_mm=(2.0, 0.0, -4.0), volume_ml=25.0, right_share=0.5)
    points = np.array([[8.5, 8.0, 17.0], [0.0, -10.0, 0.0], [0.0, 1.0, -21.0]], np.float32).T.copy()
    np.testing.assert_allclose(Anatomy(HEAD, [middle]).hu(points, 0.5)[0], [8.0, 8.0, 55.0], atol=1.0)


def test_labels_say_kind_and_side() -> None:
    right, left = BLEED_ON[1], BLEED_ON[-1]
    assert (right, left) == ("BleedLocation-Right", "BleedLocation-Left")
    midline = IVH(form="sediment", lateral_ml=(0.0, 0.0), third_ml=1.0)
    cases: list[tuple[tuple[Finding, ...], set[str]]] = [
        ((), set()),
        ((ChronicSDH(side=-1, thickness_mm=8.0),), {"ICH", "SDH", "ChronicBleed", left}),
        ((EDH(side=1, thickness_mm=8.0),), {"ICH", "EDH", right}),
        ((EDH(side=1, thickness_mm=8.0), SDH(side=-1, thickness_mm=4.0)), {"ICH", "EDH", "SDH", right, left}),
        ((IVH(form="sediment", lateral_ml=(2.0, 1.0)),), {"ICH", "IVH", right, left}),
        ((midline,), {"ICH", "IVH"}),
        ((MidlineShift(shift_mm=9.0, toward=1),), {"MidlineShift"}),
    ]
    for findings, labels in cases:
        assert {name for name, value in labels_of(findings).items() if value} == labels
    both = (ChronicSDH(side=-1, thickness_mm=8.0), SDH(side=1, thickness_mm=5.0))
    assert severities_of(both)["SDH_mm"] == 8.0
    assert severities_of(both[1:])["ChronicSDH_mm"] == 0.0


def test_two_layers_of_blood_never_lie_on_one_side() -> None:
    for seed in range(20):
        for names in (("SDH", "EDH"), ("SDH", "ChronicSDH"), ("EDH", "ChronicSDH")):
            one, other = draw_findings(np.random.default_rng(seed), HEAD, names)
            assert one.sides() != other.sides()


def test_masks_are_named_by_labels() -> None:
    old, new, shift = ChronicSDH(side=-1, thickness_mm=8.0), SDH(side=1, thickness_mm=5.0), MidlineShift(
        shift_mm=9.0, toward=1
    )  # fmt: skip
    masks = by_label([old, new, shift], {"ChronicSDH": np.array([True, False]), "SDH": np.array([False, True])})
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "SDH": [True, True],
        "ChronicBleed": [True, False],
        "ICH": [True, True],
    }


def test_masks_of_thin_bodies_have_their_volume() -> None:
    thick = np.array([[1.0, 1.0, 0.9], [0.6, 0.4, 0.0]], np.float32)
    np.testing.assert_array_equal(marked(thick), thick > 0.5)
    thin = np.array([[0.3, 0.4, 0.6], [0.4, 0.3, 0.0]], np.float32)
    np.testing.assert_array_equal(
        marked(thin), [[False, False, True], [False, False, False]] | (thin == np.float32(0.4))
    )
    trace = np.array([0.0, 0.2, 0.0], np.float32)
    np.testing.assert_array_equal(marked(trace), [False, True, False])


def test_the_cistern_over_the_sella_is_open_in_detailed_heads_alone() -> None:
    """Elsewhere heads stay as they were, so that cohorts of before can be made again."""
    x, y, z = np.meshgrid(np.arange(-8.0, 9.0), np.arange(-4.0, 7.0), [-20.0], indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), z.ravel()]).astype(np.float32)
    detailed, plain = (Anatomy(HEAD.model_copy(update={"detailed": on})).hu(points, 0.5)[0] for on in (True, False))
    np.testing.assert_allclose(detailed, CSF_HU, atol=0.1)
    assert np.mean(plain > 20) > 0.4
