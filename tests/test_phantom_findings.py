"""Fractures, tumors, edema, hydrocephalus, dementia and mass effect: physical signs, measured in what is rendered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import pytest

from fmct.data.phantom import cohort  # noqa: F401 - registers all findings
from fmct.data.phantom.anatomy import Anatomy
from fmct.data.phantom.bleeds import SDH
from fmct.data.phantom.blob import Blob
from fmct.data.phantom.dementia import ADRD
from fmct.data.phantom.edema import VasogenicEdema
from fmct.data.phantom.findings import FINDINGS, Finding, altered, draw_findings, labels_of
from fmct.data.phantom.fracture import Fracture
from fmct.data.phantom.grooves import VascularGroove
from fmct.data.phantom.head import HeadParameters, draw_head
from fmct.data.phantom.hydrocephalus import Hydrocephalus
from fmct.data.phantom.infarct import AcuteInfarct
from fmct.data.phantom.mass_effect import MassEffect, MidlineShift, SlightShift
from fmct.data.phantom.pushing import pushed_apart
from fmct.data.phantom.render import Grid, Rendering, render
from fmct.data.phantom.skull import VAULT_CENTER_MM
from fmct.data.phantom.tumor import Tumor
from fmct.data.phantom.vault_line import VaultLine

HEAD = HeadParameters(seed=5)
LINE = VaultLine(side=-1, azimuth_deg=10.0, elevation_deg=30.0, heading_deg=60.0, jaggedness_mm=0.0)


def around(blob: Blob, findings: Sequence[Finding], head: HeadParameters = HEAD, step_mm: float = 1.5) -> Rendering:
    """What surrounds a body; `HEAD` lies straight, with its commissure at the origin."""
    reach = blob.reach_mm + 6.0
    low, high = (tuple(c + sign * reach for c in blob.center_mm) for sign in (-1, 1))
    grid = Grid.spanning((low[0], low[1], low[2]), (high[0], high[1], high[2]), step_mm)
    return render(head, grid, findings, couch=False)


def ray(finding: Fracture | VascularGroove, across_mm: float, reach_mm: np.ndarray) -> np.ndarray:
    """Points outward from the vault's center that pass a line's middle at some distance in the bone, (3, N)."""
    middle, _, across = finding.line.axes()
    direction = middle + across * across_mm / 75.0
    return (np.array(VAULT_CENTER_MM)[:, None] + direction[:, None] * reach_mm).astype(np.float32)


REACH = np.arange(55.0, 100.0, 0.1)


def bone_of(anatomy: Anatomy, points: np.ndarray) -> np.ndarray:
    """Where along a ray there is bone: indices."""
    return np.flatnonzero(anatomy.hu(points, 0.2)[0] > 350)


@pytest.mark.parametrize("width_mm", [0.5, 1.5, 3.0])
def test_a_fracture_lacks_as_much_bone_as_it_is_wide(width_mm: float) -> None:
    fracture = Fracture(line=LINE, width_mm=width_mm)
    plain, broken = Anatomy(HEAD), Anatomy(HEAD, [fracture])
    bone = bone_of(plain, ray(fracture, 0.0, REACH))
    for depth in (0.15, 0.5, 0.85):  # outer table, diploe, inner table
        radius = REACH[bone[round((1.0 - depth) * (bone.size - 1))]]
        along = np.arange(-5.0, 5.0, 0.05)
        points = np.concatenate([ray(fracture, mm * 75.0 / radius, np.array([radius])) for mm in along], axis=1)
        before, after = (anatomy.hu(points, 0.2)[0] for anatomy in (plain, broken))
        lacking = ((before - after) / (before - 45.0)).sum() * 0.05
        assert lacking == pytest.approx(width_mm, rel=0.08)
    share = broken.hu(ray(fracture, 0.0, REACH), 0.2)[1]["Fracture"]
    assert share.sum() * 0.1 == pytest.approx(bone.size * 0.1, abs=0.6)


def test_a_fracture_leaves_the_other_side_and_what_is_inside() -> None:
    fracture = Fracture(line=LINE, width_mm=2.0)
    grid = Grid.spanning((-90.0, -60.0, 20.0), (90.0, 50.0, 80.0), 3.0)
    plain, broken = (render(HEAD, grid, findings, couch=False) for findings in ([], [fracture]))
    changed = np.abs(plain.hu - broken.hu) > 1.0
    assert 20 < changed.sum() < 500
    outside = Anatomy(HEAD).skull.cavity(points_of(grid)).reshape(changed.shape)[changed]
    assert outside.min() > -1.5
    assert outside.max() < 10.0
    assert (grid.axis_mm(0)[np.nonzero(changed)[2]] < 0).all()


def test_a_fragment_is_pressed_in_on_one_side_and_the_scalp_swells_over_it() -> None:
    whole = Anatomy(HEAD)
    fracture = Fracture(line=LINE, width_mm=1.0, step_mm=4.0, swelling_mm=8.0, swelling_hu=60.0)
    broken = Anatomy(HEAD, [fracture])
    for across_mm, pressed_mm in ((3.5, 4.0), (-3.5, 0.0)):
        points = ray(fracture, across_mm, REACH)
        before, after = bone_of(whole, points), bone_of(broken, points)
        assert (before[0] - after[0]) * 0.1 == pytest.approx(pressed_mm, abs=0.35)
        assert (before[-1] - after[-1]) * 0.1 == pytest.approx(pressed_mm, abs=0.5)
        assert after.size == pytest.approx(before.size, abs=5)
        skin = [float(REACH[np.flatnonzero(a.hu(points, 0.2)[0] > -500)[-1]]) for a in (whole, broken)]
        assert skin[1] - skin[0] == pytest.approx(8.0, abs=0.8)
        outside = broken.hu(points, 0.2)[0][after[-1] + 8 : after[-1] + 40]
        assert np.median(outside) == pytest.approx(60.0, abs=3.0)


def test_a_groove_leaves_the_outer_table() -> None:
    groove = VascularGroove(line=LINE, width_mm=2.0, depth=0.5)
    points = ray(groove, 0.0, REACH)
    plain, grooved = (Anatomy(HEAD, findings).hu(points, 0.2)[0] for findings in ([], [groove]))
    bone = np.flatnonzero(plain > 350)
    third = bone.size // 3
    np.testing.assert_allclose(grooved[bone[-third:]], plain[bone[-third:]], atol=1.0)
    assert grooved[bone[3:third]].max() < 100
    assert not any(labels_of([groove]).values())


def test_fractures_lie_over_an_epidural_bleed_and_some_are_hairlines() -> None:
    class Epidural(Finding):
        name: ClassVar[str] = "EDH"
        side: int = -1
        azimuth_deg: float = 22.0
        elevation_deg: float = 31.0

        @classmethod
        def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
            return cls()

    over = Fracture.draw(np.random.default_rng(0), HEAD, [Epidural()])
    assert (over.side, over.line.azimuth_deg, over.line.elevation_deg) == (-1, 22.0, 31.0)
    drawn = [Fracture.draw(np.random.default_rng(seed), HEAD, ()) for seed in range(200)]
    assert np.mean([fracture.width_mm < 0.8 for fracture in drawn]) == pytest.approx(0.3, abs=0.08)
    assert np.mean([fracture.side for fracture in drawn]) == pytest.approx(0.0, abs=0.2)
    assert 0.1 < np.mean([fracture.step_mm > 0 for fracture in drawn]) < 0.35
    assert all(fracture.step_mm == 0 for fracture in drawn if fracture.width_mm < 0.8)


@pytest.mark.parametrize("seed", [1, 4, 5])
def test_a_tumor_has_its_volume_density_and_side(seed: int) -> None:
    tumor = Tumor.draw(np.random.default_rng(seed), HEAD, ())
    picture = around(tumor.blob, [tumor])
    assert picture.volume_ml("Tumor") == pytest.approx(tumor.severity()["tumor_ml"], rel=0.1)
    inside = picture.lesions["Tumor"] > 0.999
    x = picture.grid.axis_mm(0)[np.nonzero(inside)[2]]
    assert np.sign(x.mean()) == tumor.side
    depth = -tumor.blob.distance(points_of(picture.grid))[inside.ravel()]
    wall = depth < (0.6 * tumor.wall_mm if tumor.wall_mm else 99.0)
    assert np.median(picture.hu[inside][wall]) == pytest.approx(tumor.solid_hu, abs=2.0)
    if tumor.wall_mm:
        assert np.median(picture.hu[inside][depth > 1.8 * tumor.wall_mm]) == pytest.approx(tumor.core_hu, abs=1.0)
    assert labels_of([tumor])["Tumor"] == 1


def test_kinds_of_tumors_are_drawn() -> None:
    drawn = [Tumor.draw(np.random.default_rng(seed), HEAD, ()) for seed in range(120)]
    small = np.array([tumor.blob.volume_ml < 4 for tumor in drawn])
    assert small.mean() == pytest.approx(0.3, abs=0.1)
    assert all(33 <= tumor.solid_hu <= 39 for tumor in np.array(drawn, object)[small])
    assert 0.25 < np.mean([tumor.wall_mm > 0 for tumor in drawn]) < 0.65
    assert 0.05 < np.mean([tumor.calcified > 0 for tumor in drawn]) < 0.3


def points_of(grid: Grid) -> np.ndarray:
    axes = [grid.axis_mm(axis) for axis in (2, 1, 0)]
    return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")[::-1]])


def test_calcium_takes_its_share_of_a_tumor() -> None:
    blob = Blob(center_mm=(28.0, -30.0, 34.0), volume_ml=15.0)
    picture = around(blob, [Tumor(blob=blob, solid_hu=42.0, calcified=0.2, seed=3)])
    inside = picture.hu[picture.lesions["Tumor"] > 0.999]
    assert (inside > 100).mean() == pytest.approx(0.2, abs=0.08)


def test_vasogenic_edema_darkens_white_matter_and_spares_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    for pushing in (Tumor, VasogenicEdema):  # so that tissue can be compared place by place
        monkeypatch.setattr(pushing, "displacement", Finding.displacement)
    mass = Tumor(blob=Blob(center_mm=(28.0, -30.0, 34.0), volume_ml=6.0), solid_hu=45.0)
    edema = VasogenicEdema(blob=Blob(center_mm=(28.0, -28.0, 32.0), volume_ml=40.0), around=mass.blob, edema_hu=19.0)
    plain, alone, both = (around(edema.blob, findings) for findings in ([], [mass], [mass, edema]))
    inside = (edema.blob.distance(points_of(plain.grid)) < -4.0).reshape(plain.hu.shape)
    tissue = inside & (both.lesions["Tumor"] == 0)
    white, grey = tissue & (plain.hu < 30.5) & (plain.hu > 27), tissue & (plain.hu > 36)
    assert np.median(both.hu[white]) == pytest.approx(19.0, abs=0.5)
    assert np.median(both.hu[grey]) > 33
    assert grey.sum() > 100 < white.sum()
    core = both.lesions["Tumor"] > 0.999
    np.testing.assert_allclose(both.hu[core], alone.hu[core], atol=1e-3)
    assert both.volume_ml("VasogenicEdema") < edema.volume_ml == pytest.approx(34.0)
    assert labels_of([edema])["Edema"] == 1
    little = edema.model_copy(update={"around": edema.blob.model_copy(update={"volume_ml": 30.0})})
    assert labels_of([little])["Edema"] == 0


def test_vasogenic_edema_needs_a_mass() -> None:
    with pytest.raises(ValueError, match="name Tumor or IPH before VasogenicEdema"):
        draw_findings(np.random.default_rng(0), HEAD, ["OldInfarct", "VasogenicEdema"])
    tumor, edema = draw_findings(np.random.default_rng(0), HEAD, ["Tumor", "VasogenicEdema"])
    assert isinstance(tumor, Tumor)
    assert isinstance(edema, VasogenicEdema)
    assert edema.around == tumor.blob
    assert np.sign(edema.blob.center_mm[0]) == tumor.side


def test_an_acute_infarct_loses_contrast_and_sulci_on_its_side_only() -> None:
    head = HEAD.model_copy(update={"sulcus_mm": 1.6, "gap_mm": 2.0})
    blob = Blob(center_mm=(40.0, -20.0, 28.0), volume_ml=60.0)
    infarct = AcuteInfarct(blob=blob, contrast_left=0.2, darkening_hu=5.0, closed=0.9)
    plain, ill = around(blob, [], head, 1.5), around(blob, [infarct], head, 1.5)
    inside = (blob.distance(points_of(plain.grid)) < -4.0).reshape(plain.hu.shape) & (plain.hu < 60)
    spread = [np.subtract(*np.percentile(v[inside & (v > 20)], [90, 10])) for v in (plain.hu, ill.hu)]
    assert spread[0] > 6 > 3 > spread[1]
    before, middle = np.median(plain.hu[inside & (plain.hu > 25)]), 0.5 * (37.0 + 29.5)
    assert np.median(ill.hu[inside]) == pytest.approx(middle + 0.2 * (before - middle) - 5.0, abs=0.5)
    fluid = [(v[inside] < 20).mean() for v in (plain.hu, ill.hu)]
    assert fluid[0] > 0.02 > 0.005 > fluid[1]
    mirror = around(blob.model_copy(update={"center_mm": (-40.0, -20.0, 28.0)}), [infarct], head, 3.0)
    untouched = around(blob.model_copy(update={"center_mm": (-40.0, -20.0, 28.0)}), [], head, 3.0)
    other_side = mirror.grid.axis_mm(0) < -1.0
    np.testing.assert_allclose(mirror.hu[..., other_side], untouched.hu[..., other_side], atol=1e-3)
    assert labels_of([infarct])["Edema"] == 1
    assert labels_of([infarct.model_copy(update={"blob": blob.model_copy(update={"volume_ml": 8.0})})])["Edema"] == 0


def test_tissue_gives_way_by_the_volume_and_never_folds() -> None:
    blob = Blob(center_mm=(30.0, -20.0, 30.0), volume_ml=20.0)
    away = np.arange(0.5, 60.0, 0.25, dtype=np.float32)
    points = np.array(blob.center_mm, np.float32)[:, None] + np.array([[0.0], [0.6], [0.8]], np.float32) * away
    moved = pushed_apart(blob, points, np.full(away.size, 40.0, np.float32), room=0.6)
    assert moved is not None
    before = away - np.linalg.norm(moved, axis=0)
    assert (np.diff(before) > 0).all()
    at_surface = np.argmin(np.abs(away - blob.radius_mm))
    gained = (away[at_surface] ** 3 - before[at_surface] ** 3) / away[at_surface] ** 3
    assert gained == pytest.approx(0.6 * np.exp(-1 / 2.2**2), rel=0.02)
    held = pushed_apart(blob, points, np.full(away.size, 0.5, np.float32), room=0.6)
    assert held is not None
    assert not held.any()  # at the skull
    midline = np.stack([np.zeros_like(away), points[1], points[2]])
    crossing = pushed_apart(blob, midline, np.full(away.size, 40.0, np.float32), room=0.6)
    assert crossing is None or not crossing.any()


def fluid_ml(head: HeadParameters, findings: Sequence[Finding]) -> tuple[float, float, float]:
    """Volume of fluid deep in the brain (ventricles), near its surface (sulci), and about the temporal horns."""
    grid = Grid.spanning((-75.0, -110.0, -30.0), (75.0, 75.0, 60.0), 2.5)
    picture = render(head, grid, findings, couch=False)
    points = points_of(grid)
    depth = -Anatomy(head).skull.cavity(points)
    fluid, voxel = (picture.hu.ravel() < 18), grid.step_mm**3 / 1000
    ventricles = fluid & (depth > 26) & (points[2] > 0) & (np.abs(points[0]) < 34) & (np.abs(points[0]) > 2)
    sulci = fluid & (depth > 1) & (depth < 18) & (points[2] > 10)
    horns = fluid & (np.abs(np.abs(points[0]) - 33) < 7) & (np.abs(points[1] + 20) < 14) & (np.abs(points[2] + 11) < 8)
    return tuple(float(part.sum() * voxel) for part in (ventricles, sulci, horns))  # type: ignore[return-value]


def test_hydrocephalus_and_dementia_widen_ventricles_and_part_over_sulci() -> None:
    head = HEAD.model_copy(update={"age_years": 66, "sulcus_mm": 0.7, "gap_mm": 1.5, "ventricle_scale": 1.1})
    plain = fluid_ml(head, [])
    water = fluid_ml(head, [Hydrocephalus(growth=2.0, sulci_left=0.3)])
    lost = fluid_ml(head, [ADRD(stage=0.8, age_years=70)])
    assert water[0] > 2.5 * plain[0]
    assert lost[0] > 1.3 * plain[0]
    assert water[1] < 0.6 * plain[1] < 0.6 * 0.7 * lost[1]
    assert min(water[2], lost[2]) > 1.3 * plain[2]
    early = fluid_ml(head, [ADRD(stage=0.0, age_years=70)])
    assert plain[0] < early[0] < lost[0]
    assert plain[1] < early[1] < lost[1]


def test_fluid_seeps_into_white_matter_before_the_frontal_horns() -> None:
    dry = Hydrocephalus(growth=1.8)
    wet = dry.model_copy(update={"seepage_mm": 8.0})
    head = altered(HEAD, [dry])
    points = np.stack([np.full(40, 16.0), np.linspace(30.0, 50.0, 40), np.full(40, 9.0)]).astype(np.float32)
    before, after = (Anatomy(HEAD, [finding]).hu(points, 0.5)[0] for finding in (dry, wet))
    white = before > 26
    assert white[-1]
    assert (after[white] - before[white]).min() < -5
    assert after[-1] == pytest.approx(before[-1], abs=0.1)
    assert head.ventricle_scale == pytest.approx(1.8)
    assert labels_of([wet])["Hydrocephalus"] == 1


def test_dementia_is_of_the_old() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        head = draw_head(rng)
        finding = ADRD.draw(rng, head, ())
        after = altered(head, [finding])
        assert after.age_years >= 60
        assert after.age_years == head.age_years or head.age_years < 60
        assert after.sulcus_mm > head.sulcus_mm
        assert labels_of([finding])["ADRD"] == 1


def test_no_finding_alters_skull_or_pose() -> None:
    head = draw_head(np.random.default_rng(2))
    kept = ("seed", "scale", "taper", "skew", "irregularity_mm", "skull_mm", "scalp_mm", "pose")
    for name in FINDINGS:
        before = ["IPH"] if name == "VasogenicEdema" else []
        drawn = draw_findings(np.random.default_rng(3), head, [*before, name])
        assert drawn == draw_findings(np.random.default_rng(3), head, [*before, name])
        after = altered(head, drawn)
        assert [getattr(after, field) for field in kept] == [getattr(head, field) for field in kept], name


def test_mass_effect_follows_from_what_pushes() -> None:
    def effect(*findings: Finding) -> MassEffect:
        return MassEffect.draw(np.random.default_rng(0), HEAD, findings)

    def tumor(volume_ml: float) -> Tumor:
        return Tumor(blob=Blob(center_mm=(30.0, -20.0, 30.0), volume_ml=volume_ml))

    assert effect().pushed_mm == 0
    assert effect(SlightShift(shift_mm=4.0, toward=1)).pushed_mm == 0
    assert effect(MidlineShift(shift_mm=8.0, toward=1)).pushed_mm == pytest.approx(8.0, rel=0.1)
    thin, thick = (effect(SDH(side=1, thickness_mm=mm)) for mm in (3.0, 9.0))
    assert not thin.positive()
    assert thick.positive()
    pushed = [effect(tumor(volume)).pushed_mm for volume in (1.0, 5.0, 30.0)]
    assert pushed[0] < 2.5 < pushed[2]
    assert pushed == sorted(pushed)
    # what borders on a ball moves as far as that ball's own field says: 30 mL, r = 19.3 mm
    share = 1 - (1 - 0.7 * np.exp(-1 / 2.2**2)) ** (1 / 3)
    assert pushed[2] == pytest.approx(share * tumor(30.0).blob.radius_mm, rel=0.03)
    assert labels_of([thick])["MassEffect"] == 1
    assert effect(Hydrocephalus(growth=2.0)).pushed_mm == 0
