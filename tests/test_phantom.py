"""Synthetic heads: tissue, findings and registry, held against what they were built to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import pytest

from fmct.data.phantom import bleeds, distractors, mass_effect
from fmct.data.phantom.anatomy import Anatomy
from fmct.data.phantom.brain import BrainPoints
from fmct.data.phantom.findings import (
    BLEED_ON,
    FINDINGS,
    Finding,
    draw_findings,
    label_names,
    labels_of,
    register,
    severities_of,
)
from fmct.data.phantom.head import HeadParameters, Pose, draw_head
from fmct.data.phantom.render import Grid, Rendering, head_box, render
from fmct.data.phantom.shapes import capsule, ellipsoid, share_between, share_inside, smooth_min

HEAD = HeadParameters(seed=5)
MARGIN_HU = 1.5  # texture of the tissue


def rendered(head: HeadParameters, findings: Sequence[Finding] = (), step_mm: float = 1.5) -> Rendering:
    return render(head, Grid.spanning(*head_box(head), step_mm), findings, couch=False)


def hu_at(anatomy: Anatomy, *points_mm: tuple[float, float, float], edge_mm: float = 0.5) -> np.ndarray:
    return anatomy.hu(np.array(points_mm, np.float32).T.copy(), edge_mm)[0]


def test_distances_are_exact_where_they_can_be() -> None:
    points = np.array([[3.0, 0.0, 0.0], [0.0, 0.0, 7.0], [5.0, 0.0, -4.0]], np.float32).T.copy()
    np.testing.assert_allclose(ellipsoid(points, (0, 0, 0), (2, 2, 2)), [1.0, 5.0, np.sqrt(41) - 2], rtol=3e-4)
    np.testing.assert_allclose(capsule(points, (0, 0, 0), (0, 0, 5), 1.0), [2.0, 1.0, np.sqrt(41) - 1], rtol=1e-5)
    tapered = capsule(np.array([[4.0], [0.0], [5.0]], np.float32), (0, 0, 0), (0, 0, 10), 1.0, 3.0)
    np.testing.assert_allclose(tapered, [2.0], rtol=1e-5)
    at_center = ellipsoid(np.zeros((3, 1), np.float32), (0, 0, 0), (2, 3, 9))
    np.testing.assert_allclose(at_center, [-2.0], rtol=1e-3)


def test_share_is_the_part_of_a_voxel_inside() -> None:
    distance = np.linspace(-2.0, 2.0, 401, dtype=np.float32)
    # 1 mm of material at distances 0.3..1.3 keeps its thickness however coarse the voxels are.
    for edge in (0.2, 1.0, 1.7):
        layer = share_between(distance, -0.5, 0.5, edge)
        assert layer.sum() * 0.01 == pytest.approx(1.0, abs=0.02)
        assert layer.max() == pytest.approx(min(1.0, 1.0 / edge), abs=0.02)
    assert share_inside(np.zeros(1, np.float32), 1.0)[0] == 0.5


def test_rounded_union_never_lies_outside_the_sharp_one() -> None:
    a, b = np.random.default_rng(0).normal(0, 5, (2, 500)).astype(np.float32)
    rounded = smooth_min(a, b, 3.0)
    assert (rounded <= np.minimum(a, b) + 1e-6).all()
    assert (rounded >= np.minimum(a, b) - 0.76).all()


def test_tissue_has_the_hu_of_its_kind() -> None:
    anatomy = Anatomy(HEAD)
    places = {
        (-8.5, 0.0, 18.0): 8.0,  # lateral ventricle
        (8.5, 0.0, 18.0): 8.0,
        (0.0, -10.0, -1.0): 8.0,  # third ventricle
        (0.0, -47.0, -26.0): 8.0,  # fourth ventricle
        (27.0, -2.0, 3.0): 37.0,  # putamen
        (-11.0, -17.0, 7.0): 37.0,  # thalamus
        (24.0, -12.0, 34.0): 29.5,  # centrum semiovale
        (-24.0, -12.0, 34.0): 29.5,
        (0.0, -28.0, -30.0): 34.0,  # pons
        (32.0, 60.0, -38.0): 12.0,  # eyeball
        (23.0, 44.0, -38.0): -90.0,  # orbital fat
        (29.0, 50.0, -70.0): -1000.0,  # maxillary sinus
        (8.0, 10.0, -38.0): -1000.0,  # sphenoid sinus
        (150.0, 0.0, 0.0): -1000.0,
    }
    np.testing.assert_allclose(hu_at(anatomy, *places), list(places.values()), atol=2 * MARGIN_HU)


def test_face_has_a_nose_lips_and_teeth_that_differ_from_head_to_head() -> None:
    from_front = np.arange(140.0, 40.0, -0.5, dtype=np.float32)
    skin_mm = []
    for seed in range(4):
        head = HEAD.model_copy(update={"seed": seed})
        at = []
        for z in (-66.0, -78.0 - 8.0, -94.0, -99.0, -117.0):  # tip of the nose, lip, mouth, lip, chin
            ray = np.stack([np.zeros_like(from_front), from_front, np.full_like(from_front, z)])
            at.append(float(from_front[np.flatnonzero(Anatomy(head).hu(ray, 0.5)[0] > -300)[0]]))
        nose, upper, mouth, lower, chin = at
        assert nose > max(upper, lower) + 3 > mouth + 6
        assert min(upper, lower) > chin - 12
        skin_mm.append(at)
        tip = Anatomy(head).parts(np.array([[0.0], [nose - 4.0], [-66.0]], np.float32))
        assert tip["nose"] < 0 < min(tip["lips"], tip["intracranial"], tip["ears"])
    assert np.std(skin_mm, axis=0)[0] > 0.5
    assert hu_at(Anatomy(HEAD), (12.0, 58.0, -87.0), (12.0, 58.0, -101.0)).min() > 2000  # teeth
    assert Anatomy(HEAD).parts(np.zeros((3, 1), np.float32))["intracranial"] < -20


def test_skull_has_compact_tables_around_diploe() -> None:
    anatomy = Anatomy(HEAD.model_copy(update={"skull_mm": 8.0, "irregularity_mm": 0.0}))
    # Up from the middle of the vault: brain, inner table, diploe, outer table, scalp, air.
    z = np.arange(60.0, 110.0, 0.1, dtype=np.float32)
    profile = anatomy.hu(np.stack([np.full_like(z, 10.0), np.full_like(z, -17.0), z]), 0.2)[0]
    bone = np.flatnonzero(profile > 300)
    thickness = (bone[-1] - bone[0] + 1) * 0.1
    assert thickness == pytest.approx(8.0, rel=0.3)
    inside = profile[bone[0] : bone[-1] + 1]
    third = len(inside) // 8
    assert 1200 < np.median(inside[:third]) < 1600
    assert 1200 < np.median(inside[-third:]) < 1600
    assert 450 < np.median(inside[3 * third : 5 * third]) < 750
    assert profile[-1] == -1000
    assert (profile[bone[-1] + 5 : bone[-1] + 40] < 100).all()


def test_brain_is_grey_and_white_and_of_a_brains_volume() -> None:
    head = draw_head(np.random.default_rng(0))
    picture = rendered(head)
    voxel_ml = picture.grid.step_mm**3 / 1000
    brain = ((picture.hu > 20) & (picture.hu < 45)).sum() * voxel_ml
    assert 1000 < brain < 1800
    grey = ((picture.hu > 34) & (picture.hu < 40)).sum()
    white = ((picture.hu > 27) & (picture.hu < 32)).sum()
    assert 0.25 < grey / (grey + white) < 0.75
    assert 300 < (picture.hu > 300).sum() * voxel_ml < 900


def test_one_head_is_the_same_on_any_grid() -> None:
    fine = rendered(HEAD, step_mm=1.0)
    coarse = rendered(HEAD, step_mm=3.0)
    averaged = fine.hu[: coarse.hu.shape[0] * 3 - 2 : 3, ::3, ::3]
    shape = tuple(min(a, b) for a, b in zip(averaged.shape, coarse.hu.shape, strict=True))
    a, b = (v[: shape[0], : shape[1], : shape[2]] for v in (averaged, coarse.hu))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95
    mass = [(v.hu + 1000).sum(dtype=np.float64) * v.grid.step_mm**3 for v in (fine, coarse)]
    assert mass[0] == pytest.approx(mass[1], rel=0.02)
    volume = [(v.hu > -300).sum() * v.grid.step_mm**3 for v in (fine, coarse)]
    assert volume[0] == pytest.approx(volume[1], rel=0.03)


def test_pose_moves_the_head_as_a_rigid_body() -> None:
    pose = Pose(pitch_deg=10.0, roll_deg=-4.0, yaw_deg=7.0, shift_mm=(3.0, -12.0, 40.0))
    points = np.random.default_rng(0).normal(0, 60, (3, 50)).astype(np.float32)
    moved = pose.to_patient(points)
    np.testing.assert_allclose(pose.to_head(moved), points, atol=1e-4)
    distances = [np.linalg.norm(p[:, 0] - p[:, 1]) for p in (points, moved)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-5)
    chin_up = Pose(pitch_deg=10.0).to_patient(np.array([[0.0], [100.0], [0.0]], np.float32))
    assert chin_up[2, 0] > 0


def test_same_seed_same_head_other_seed_another() -> None:
    first, again, other = (draw_head(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again != other
    a, b, c = (rendered(head, step_mm=4.0).hu for head in (first, again, other.model_copy(update={"pose": first.pose})))
    assert (a == b).all()
    assert not np.array_equal(a[: min(len(a), len(c)), :40, :40], c[: min(len(a), len(c)), :40, :40])


@pytest.mark.parametrize("seed", range(6))
def test_iph_has_its_volume_density_and_side(seed: int) -> None:
    rng = np.random.default_rng(seed)
    head = draw_head(rng)
    finding = bleeds.IPH.draw(rng, head, ())
    picture = rendered(head, [finding])
    stated = finding.severity()["IPH_ml"]
    assert 3.0 <= stated <= 25.0
    assert picture.volume_ml("IPH") == pytest.approx(stated, rel=0.05)
    core = picture.lesions["IPH"] > 0.999
    np.testing.assert_allclose(picture.hu[core], finding.blood_hu, atol=0.1)
    where = np.argwhere(core).mean(0)
    center = np.array([picture.grid.axis_mm(2 - axis)[round(i)] for axis, i in enumerate(where)])[::-1]
    in_head = head.pose.to_head(center[:, None].astype(np.float32))[:, 0]
    assert np.sign(in_head[0]) == finding.side


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("thickness_mm", [3.0, 7.0, 12.0])
def test_sdh_has_its_thickness_density_and_side(side: int, thickness_mm: float) -> None:
    finding = bleeds.SDH(side=side, thickness_mm=thickness_mm, blood_hu=61.0)
    anatomy = Anatomy(HEAD, [finding])
    # Outward from the vault's center toward the middle of the crescent: (17 mm behind, 8 above the commissure).
    elevation = np.deg2rad(finding.elevation_deg)
    along = np.arange(30.0, 90.0, 0.1, dtype=np.float32)
    ray = np.stack([side * np.cos(elevation) * along, np.full_like(along, -17.0), 8.0 + np.sin(elevation) * along])
    _, shares = anatomy.hu(ray, 0.2)
    assert shares["SDH"].sum() * 0.1 == pytest.approx(thickness_mm, rel=0.12)
    picture = rendered(HEAD, [finding], step_mm=2.0)
    mask = picture.lesions["SDH"] > 0.5
    x = picture.grid.axis_mm(0)
    assert (np.sign(x[np.nonzero(mask)[2]]) == side).all()
    if thickness_mm > 5:
        core = picture.lesions["SDH"] > 0.999
        assert np.median(picture.hu[core]) == pytest.approx(61.0, abs=0.1)


def test_sdh_lies_between_bone_and_brain() -> None:
    finding = bleeds.SDH(side=1, thickness_mm=8.0, blood_hu=65.0)
    plain, bleeding = Anatomy(HEAD), Anatomy(HEAD, [finding])
    along = np.arange(40.0, 85.0, 0.1, dtype=np.float32)
    ray = np.stack([along, np.full_like(along, -17.0), np.full_like(along, 30.0)])
    before, (after, shares) = plain.hu(ray, 0.2)[0], bleeding.hu(ray, 0.2)
    blood = np.flatnonzero(shares["SDH"] > 0.99)
    inner_table = np.flatnonzero(before > 600)[0]
    assert 0 <= inner_table - blood[-1] <= 10
    np.testing.assert_allclose(before[inner_table + 1 :], after[inner_table + 1 :], atol=5)  # bone stays as it was
    assert after[blood[0] - 10 : blood[0] - 2].max() < 45  # fluid or cortex under it


@pytest.mark.parametrize(("shift_mm", "toward"), [(2.0, 1), (5.0, -1), (9.5, 1), (13.0, -1)])
def test_midline_shift_moves_the_septum_by_what_it_says(shift_mm: float, toward: int) -> None:
    shift = mass_effect.MidlineShift(shift_mm=shift_mm, toward=toward)
    x = np.arange(-30.0, 30.0, 0.1, dtype=np.float32)
    row = np.stack([x, np.full_like(x, 4.0), np.full_like(x, 16.0)])  # through both lateral ventricles
    head = HEAD.model_copy(update={"ventricle_scale": 1.4})

    def septum(findings: Sequence[Finding]) -> float:
        hu = Anatomy(head, findings).hu(row, 0.2)[0]
        fluid = np.flatnonzero(hu < 12)
        between = np.flatnonzero(hu[fluid[0] : fluid[-1]] > 15) + fluid[0]
        return float(x[between].mean())

    assert septum([]) == pytest.approx(0.0, abs=0.15)
    assert septum([shift]) == pytest.approx(toward * shift_mm, abs=0.3)
    assert shift.positive() == (shift_mm >= 5)
    assert labels_of([shift])["MidlineShift"] == int(shift_mm >= 5)


def test_midline_shift_leaves_the_skull_and_folds_nothing() -> None:
    shift = mass_effect.MidlineShift(shift_mm=14.0, toward=1)
    plain, shifted = rendered(HEAD, step_mm=2.0).hu, rendered(HEAD, [shift], step_mm=2.0).hu
    bone = plain > 500
    np.testing.assert_allclose(plain[bone], shifted[bone], atol=40)
    x = np.arange(-70.0, 70.0, 0.25, dtype=np.float32)
    for z in (-10.0, 10.0, 30.0, 50.0):
        for y in (-70.0, -20.0, 30.0):
            points = np.stack([x, np.full_like(x, y), np.full_like(x, z)])
            depth = -Anatomy(HEAD).skull.cavity(points)
            moved = shift.displacement(HEAD, points, depth)
            assert moved is not None
            assert (np.diff(x - moved[0])[depth[:-1] > 0] > 0).all()


def test_labels_follow_from_what_was_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = draw_findings(rng, HEAD, ["SDH", "SlightShift", "Calcification"])
    assert positive(drawn) == {"ICH", "SDH", BLEED_ON[drawn[0].side]}
    severities = severities_of(drawn)
    assert severities["IPH_ml"] == 0 < severities["midline_shift_mm"] < 5
    assert labels_of(draw_findings(rng, HEAD, ["OldInfarct"])) == dict.fromkeys(label_names(), 0)
    drawn = draw_findings(rng, HEAD, ["IPH", "MidlineShift"])
    assert positive(drawn) == {"ICH", "IPH", "MidlineShift", BLEED_ON[drawn[0].side]}


def positive(findings: Sequence[Finding]) -> set[str]:
    return {name for name, value in labels_of(findings).items() if value}


@pytest.mark.parametrize("seed", range(4))
def test_shift_points_away_from_the_bleed(seed: int) -> None:
    bleed, shift = draw_findings(np.random.default_rng(seed), HEAD, ["SDH", "MidlineShift"])
    assert isinstance(bleed, bleeds.SDH)
    assert isinstance(shift, mass_effect.MidlineShift)
    assert shift.toward == -bleed.side


def test_calcification_is_bright_and_moves_with_the_ventricles() -> None:
    calcium = distractors.Calcification(choroid_mm=3.0, pineal_mm=2.5, calcium_hu=200.0)
    shift = mass_effect.MidlineShift(shift_mm=8.0, toward=1)
    still, moved = (Anatomy(HEAD, findings) for findings in ([calcium], [shift, calcium]))
    assert hu_at(still, (0.0, -33.0, 0.0))[0] == pytest.approx(200.0)
    assert hu_at(moved, (0.0, -33.0, 0.0))[0] < 100
    assert hu_at(still, (22.0, -40.0, 10.0), (-22.0, -40.0, 10.0)).min() == pytest.approx(200.0)
    assert labels_of([calcium])["ICH"] == 0


def test_a_finding_of_ones_own_is_drawn_painted_and_labeled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmct.data.phantom.findings.FINDINGS", dict(FINDINGS))

    @register
    class Ball(Finding):
        name: ClassVar[str] = "Ball"
        labels: ClassVar[tuple[str, ...]] = ("Cyst",)
        severity_names: ClassVar[tuple[str, ...]] = ("Ball_mm",)
        radius_mm: float

        @classmethod
        def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
            return cls(radius_mm=10.0)

        def severity(self) -> dict[str, float]:
            return {"Ball_mm": self.radius_mm}

        def paint(self, head: HeadParameters, hu: np.ndarray, at: BrainPoints) -> np.ndarray:
            share = share_inside(ellipsoid(at.points_mm, (30.0, -20.0, 30.0), (self.radius_mm,) * 3), at.edge_mm)
            hu += share * (90.0 - hu)
            return share

    assert label_names()[-1] == "Cyst"
    drawn = draw_findings(np.random.default_rng(0), HEAD, ["Ball"])
    assert labels_of(drawn)["Cyst"] == 1
    assert severities_of(drawn)["Ball_mm"] == 10.0
    picture = rendered(HEAD, drawn, step_mm=2.0)
    assert picture.volume_ml("Ball") == pytest.approx(4 / 3 * np.pi, rel=0.03)
    assert np.median(picture.hu[picture.lesions["Ball"] > 0.99]) == pytest.approx(90.0)


def test_two_findings_cannot_have_one_name() -> None:
    class Impostor(mass_effect.SlightShift):
        name: ClassVar[str] = "IPH"

    with pytest.raises(ValueError, match="IPH is registered already"):
        register(Impostor)
