"""What disturbs scans: by the laws of the rays, where it says, and not at all unless it is asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import pytest

from fmct.console.command import main
from fmct.data.phantom import acquisition, bleeds, distractors, mass_effect  # noqa: F401 - registers the findings
from fmct.data.phantom.acquisition import Sampler, acquire
from fmct.data.phantom.artifacts import Artifacts, hardening_error, metal_error, motion_error, spread
from fmct.data.phantom.beam import Beam, Spectrum, bone_share
from fmct.data.phantom.bleeds import IPH
from fmct.data.phantom.blob import Blob
from fmct.data.phantom.cohort import Case, CohortConfig
from fmct.data.phantom.coverage import lesion_range
from fmct.data.phantom.details import Details, Traits
from fmct.data.phantom.detector_noise import FINER, level_hu, ramp_noise
from fmct.data.phantom.effects import Effects, Habits, Metal, Motion
from fmct.data.phantom.findings import draw_findings
from fmct.data.phantom.head import HeadParameters, Pose, draw_head
from fmct.data.phantom.metal import metal_ball
from fmct.data.phantom.render import Band, Grid, render
from fmct.data.phantom.scanner import SCANNERS, Overrides, Protocol
from fmct.data.phantom.writer import Identity
from fmct.phantom import COMMAND

COARSE = Overrides(pixel_mm=3.5, slice_mm=6.0)
DISTURBED = COARSE.model_copy(update={"effects": True})
BEAM = Beam(64, 90, 4.0)
SPECTRUM = Spectrum.of(120)


def disc(center_mm: tuple[float, float], radius_mm: float, beam: Beam = BEAM) -> np.ndarray:
    """(N, N): which pixels lie within; center by x (columns) and y (rows)."""
    along = (np.arange(beam.count) - (beam.count - 1) / 2) * beam.pixel_mm
    return np.hypot(along[None] - center_mm[0], along[:, None] - center_mm[1]) < radius_mm


def water_with(*bones: np.ndarray, hu: float = 1500.0, beam: Beam = BEAM) -> np.ndarray:
    """(N, N) HU of a round head of water in air with some bone in it."""
    plane = np.where(disc((0, 0), 90.0, beam), 0.0, -1000.0).astype(np.float32)
    for bone in bones:
        plane[bone] = hu
    return plane


def head_protocol(**effects: object) -> Protocol:
    z = tuple(-50.0 + 6.0 * k for k in range(26))
    return Protocol(
        kvp=120, tilt_deg=0.0, slice_mm=(6.0,) * 26, table_z_mm=z, pixel_mm=3.0, matrix=80, center_mm=(0.0, 0.0),
        effects=Effects.model_validate(effects) if effects else None,
    )  # fmt: skip


def test_projections_of_a_disc_are_its_chords_and_reconstruct_it() -> None:
    water = disc((10.0, -6.0), 60.0).astype(np.float32).reshape(-1, 1)
    rays = BEAM.project(water).reshape(BEAM.angles, BEAM.count)
    angle = np.arange(BEAM.angles) * np.pi / BEAM.angles
    offset = (np.arange(64) - 31.5) * 4.0 - (10.0 * np.cos(angle) - 6.0 * np.sin(angle))[:, None]
    chords = 2.0 * np.sqrt(np.maximum(60.0**2 - offset**2, 0.0))
    assert np.abs(rays - chords).mean() < 2.5
    again = BEAM.reconstruct(BEAM.project(water)).reshape(64, 64)
    assert again[disc((10.0, -6.0), 48.0)].mean() == pytest.approx(1.0, abs=0.02)
    assert np.abs(again[disc((10.0, -6.0), 110.0) & ~disc((10.0, -6.0), 72.0)]).mean() < 0.05


def test_spectrum_hardens_and_water_is_corrected_exactly() -> None:
    lengths = np.array([1.0, 100.0, 200.0], np.float32)
    measured = SPECTRUM.measured(lengths, np.zeros_like(lengths))
    assert measured[0] > measured[1] / 100 > measured[2] / 200  # mm for mm, less and less
    np.testing.assert_allclose(SPECTRUM.as_water(measured), lengths, rtol=1e-3)
    mean_kev = [(Spectrum.of(kvp).weights * np.arange(35.0, kvp, 10.0)).sum() for kvp in (100, 120, 140)]
    assert 55 < mean_kev[0] < mean_kev[1] < mean_kev[2] < 90
    assert bone_share(np.array([50.0, 1630.0], np.float32)) == pytest.approx([0.0, 1.0], abs=0.02)


def test_water_alone_stays_as_it_is_and_two_bones_have_a_dark_streak_between() -> None:
    error, _ = hardening_error(BEAM, SPECTRUM, water_with().reshape(-1, 1))
    assert np.abs(error).max() < 0.5  # mm
    plane = water_with(disc((-45.0, 0.0), 14.0), disc((45.0, 0.0), 14.0))
    error, total = hardening_error(BEAM, SPECTRUM, plane.reshape(-1, 1))
    picture = 1000.0 * BEAM.reconstruct(error).reshape(64, 64)
    between, above = picture[disc((0.0, 0.0), 10.0)].mean(), picture[disc((0.0, 60.0), 10.0)].mean()
    assert between < above - 10.0
    assert total.max() > 250.0  # through both bones


def test_moving_halfway_doubles_contours_and_not_moving_changes_nothing() -> None:
    plane = water_with(disc((40.0, 0.0), 10.0))
    moved = Motion(above_mm=0.0, length_mm=9.0, shift_mm=(0.0, 20.0), turn_deg=0.0, when=0.5)
    picture = 1000.0 * BEAM.reconstruct(motion_error(BEAM, plane, moved)).reshape(64, 64)
    # Forward is toward lower rows: the bone is fainter where it was and appears where it went.
    assert picture[disc((40.0, 0.0), 8.0)].mean() < -200.0
    assert picture[disc((40.0, -20.0), 8.0)].mean() > 200.0
    assert abs(picture[disc((40.0, 20.0), 8.0)].mean()) < 150.0
    still = moved.model_copy(update={"shift_mm": (0.0, 0.0)})
    assert np.abs(motion_error(BEAM, plane, still)).max() < 1e-3


def test_metal_is_bright_with_streaks() -> None:
    plane, metal = water_with(), disc((20.0, 10.0), 5.0).astype(np.float32)
    picture = 1000.0 * BEAM.reconstruct(metal_error(BEAM, SPECTRUM, plane, metal)).reshape(64, 64)
    assert picture[disc((20.0, 10.0), 3.0)].mean() > 2000.0
    away = disc((0.0, 0.0), 80.0) & ~disc((20.0, 10.0), 16.0)
    assert picture[away].std() > 3.0
    assert np.abs(metal_error(BEAM, SPECTRUM, plane, np.zeros_like(metal))).max() == 0.0


def test_metal_lies_where_it_is_and_weighs_what_it_does() -> None:
    protocol = head_protocol(metal=Metal(center_mm=(30.0, -20.0, 12.0), radius_mm=2.0))
    head = HeadParameters(seed=8, pose=Pose(shift_mm=(4.0, 10.0, 3.0)))
    assert protocol.effects is not None
    shares = metal_ball(head, protocol, protocol.effects)
    volume = sum(float(share.sum()) for share in shares.values()) * protocol.pixel_mm**2 * 6.0
    assert volume == pytest.approx(4.0 / 3.0 * np.pi * 8.0, rel=0.1)
    (k,) = shares
    assert abs(protocol.table_z_mm[k] - 15.0) <= 3.0
    row, column = np.unravel_index(int(shares[k].argmax()), shares[k].shape)
    at = (np.array([column, row]) - 39.5) * 3.0
    np.testing.assert_allclose(at, [-34.0, 10.0], atol=2.0)  # LPS


@pytest.mark.parametrize("name", list(SCANNERS))
def test_noise_has_a_ramp_in_its_spectrum_cut_off_by_the_kernel(name: str) -> None:
    scanner = SCANNERS[name]
    pixel = float(np.mean(scanner.pixel_mm))
    protocol = head_protocol().model_copy(update={"pixel_mm": pixel, "matrix": 128})
    rng = np.random.default_rng(0)
    slices = np.stack([ramp_noise(scanner, protocol, 5.0, rng) for _ in range(12)])
    assert slices.std() == pytest.approx(level_hu(scanner, protocol, 5.0), rel=0.04)
    power = (np.abs(np.fft.fft2(slices)) ** 2).mean(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128, pixel), np.fft.fftfreq(128, pixel)))
    edges = np.linspace(0.03, 0.45 / pixel, 12)
    measured = np.array([power[(frequency >= a) & (frequency < b)].mean() for a, b in pairwise(edges)])
    middle = (edges[1:] + edges[:-1]) / 2
    expected = middle * np.exp(-((2 * np.pi * middle * FINER * scanner.noise_correlation_mm) ** 2))
    strong = expected > 0.05 * expected.max()
    np.testing.assert_allclose((measured / measured.sum())[strong], (expected / expected.sum())[strong], rtol=0.3)


def test_sharp_kernels_have_finer_and_stronger_noise() -> None:
    scanner = SCANNERS["scanner_d"]
    used = scanner.as_used(head_protocol(sharp=True))
    assert scanner.as_used(head_protocol(sharp=False)) is scanner
    assert used.kernel == "FC30" != scanner.kernel
    assert used.noise_hu > scanner.noise_hu
    assert used.noise_correlation_mm < scanner.noise_correlation_mm


def artifacts_of(head: HeadParameters, protocol: Protocol) -> Artifacts:
    reach = 125.0
    rendering = render(head, Grid.spanning((-reach, -reach, -80.0), (reach, reach, 110.0), 3.0), couch=False)
    assert protocol.effects is not None

    def slices(other: Protocol) -> np.ndarray:
        count = len(other.slice_mm)
        return Sampler(rendering.grid, other, 0.5)(rendering.hu + np.float32(1000.0), slice(0, count)) - 1000.0

    return Artifacts(head, protocol, protocol.effects, slices)


def test_noise_is_strongest_behind_the_densest_bone() -> None:
    artifacts = artifacts_of(HeadParameters(seed=8), head_protocol(hardening=0.5))
    center, z = slice(34, 46), np.array(artifacts.protocol.table_z_mm)
    fossa, vertex = int(np.argmin(np.abs(z + 35.0))), int(np.argmin(np.abs(z - 65.0)))
    at_fossa, at_vertex = (artifacts.noise_map(k) for k in (fossa, vertex))
    assert at_fossa[44:56, center].mean() > 1.3 * at_vertex[center, center].mean()
    middle = artifacts.noise_map(int(np.argmin(np.abs(z - 15.0))))
    assert middle[center, center].mean() > 1.1 * middle[14:18, center].mean()  # less toward the surface


def test_effects_are_habits_and_draw_from_their_own_generator() -> None:
    head = HeadParameters(seed=8)
    for scanner in SCANNERS.values():
        first, second = np.random.default_rng(5), np.random.default_rng(5)
        plain, disturbed = scanner.draw(first, head, COARSE), scanner.draw(second, head, DISTURBED)
        assert disturbed.effects is not None
        assert disturbed.model_copy(update={"effects": None}) == plain
        assert first.random() == second.random()
    drawn = [Habits(motion=0.3, metal=0.1, missed=0.2).draw(np.random.default_rng(seed)) for seed in range(400)]
    assert np.mean([e.motion is not None for e in drawn]) == pytest.approx(0.3, abs=0.07)
    assert np.mean([e.metal is not None for e in drawn]) == pytest.approx(0.1, abs=0.05)
    assert np.mean([e.missed_mm[1] > 0 for e in drawn]) == pytest.approx(0.2, abs=0.06)
    assert not any(e.sharp for e in drawn)
    hardening = [e.hardening for e in drawn]
    assert 0.2 <= min(hardening) < 0.25 < 0.35 < max(hardening) <= 0.4


def test_missed_coverage_never_misses_a_lesion() -> None:
    head = HeadParameters(seed=8)
    missed = head_protocol(hardening=0.3, missed_mm=(15.0, 20.0))
    scanner = SCANNERS["scanner_a"]
    short = acquire(head, scanner, missed, np.random.default_rng(0))
    kept = np.array(short.protocol.table_z_mm)
    assert kept.min() == -44.0  # above the foramen at -60 and 15 mm
    assert kept.max() == 64.0  # below the vertex at 86 less 20 mm
    assert len(short.hu) == kept.size < len(missed.slice_mm)
    high = IPH(blob=Blob(center_mm=(20.0, -20.0, 64.0), volume_ml=9.0, seed=3), blood_hu=70.0)
    made = acquire(head, scanner, missed, np.random.default_rng(0), [high], lesions=True)
    assert made.rendering is not None
    assert made.rendering.volume_ml("IPH") == pytest.approx(9.0, rel=0.1)
    scanned_ml = float(made.lesions["IPH"].sum()) * missed.pixel_mm**2 * 6.0 / 1000.0
    assert scanned_ml == pytest.approx(made.rendering.volume_ml("IPH"), rel=0.02)
    assert max(made.protocol.table_z_mm) > kept.max()
    assert lesion_range(missed, replace(made.rendering, lesions={})) is None


def plain_scans() -> dict[str, np.ndarray]:
    """A scan by each of the first scanners, without effects."""
    scans = {}
    for number, name in enumerate(("scanner_a", "scanner_b", "scanner_c")):
        rng = np.random.default_rng([41, number])
        head = draw_head(rng)
        findings = draw_findings(rng, head, ("IPH", "SDH", "MidlineShift", "Calcification"))
        scanner = SCANNERS[name]
        scans[name] = acquire(head, scanner, scanner.draw(rng, head, COARSE), rng, findings).hu
    return scans


def test_without_effects_scans_are_what_they_always_were() -> None:
    golden = json.loads((Path(__file__).parent / "golden_plain_phantoms.json").read_text())
    for name, hu in plain_scans().items():
        values = hu[::5, 12:-12:8, 12:-12:8].ravel()
        # Exact on the machine that wrote them; another processor's square roots may round a voxel to its neighbor.
        assert np.abs(values - np.array(golden[name])).max() <= 1
        assert (values == np.array(golden[name])).mean() > 0.98


def test_identifiers_of_plans_without_effects_are_what_they_always_were() -> None:
    about = {"patient_id": "A0001", "visit": 1, "site": "site_a", "scanner": "scanner_a", "seed": 7}
    plain = Case.model_validate(about | {"findings": ["IPH"], "format": "dicom", "overrides": COARSE})
    assert "effects" not in plain.model_dump_json()
    assert plain.study != plain.model_copy(update={"overrides": DISTURBED}).study
    assert Overrides.model_validate_json(DISTURBED.model_dump_json()) == DISTURBED


def test_disturbed_scans_are_seeded_and_differ_from_plain_ones() -> None:
    scanner, head = SCANNERS["scanner_d"], HeadParameters(seed=8)
    first, again, plain = (
        acquire(head, scanner, scanner.draw(rng, head, overrides), rng)
        for overrides, rng in ((o, np.random.default_rng(3)) for o in (DISTURBED, DISTURBED, COARSE))
    )
    assert np.array_equal(first.hu, again.hu)
    assert first.protocol.effects is not None
    assert first.hu.shape != plain.hu.shape or not np.array_equal(first.hu, plain.hu)


def test_command_makes_scans_with_effects(tmp_path: Path) -> None:
    arguments = ["--n", "1", "--sites", "1", "--format", "dicom", "--pixel-mm", "3.5", "--slice-mm", "6", "--effects"]
    assert main(COMMAND, [*arguments, "--out", str(tmp_path / "cohort")]) == 0
    (case,) = CohortConfig(scans=1, sites=1, format="dicom", overrides=DISTURBED).build()
    file = pydicom.dcmread(tmp_path / "cohort" / case.path / "0001.dcm")
    identity = Identity(patient_id=case.patient_id, age_years=50, sex="F", study=case.study)
    assert file.StudyInstanceUID == identity.study_uid


def test_details_are_in_the_brain_and_in_bone() -> None:
    head = HeadParameters(seed=8, age_years=75)
    grid = Grid.spanning((-80.0, -110.0, -40.0), (80.0, 75.0, 84.0), 2.5)
    plain, detailed = (render(head.model_copy(update={"detailed": d}), grid, couch=False).hu for d in (False, True))
    y, z = grid.axis_mm(1), grid.axis_mm(2)
    above = z > 8.0  # the sinuses' walls
    assert np.array_equal(plain[above] < -200.0, detailed[above] < -200.0)  # the outline is the same
    bone = plain > 1000.0
    assert detailed[bone].std() > 1.3 * plain[bone].std()
    artery = np.ix_(np.abs(z + 33.0) < 6.0, np.abs(y + 11.5) < 5.0, np.abs(grid.axis_mm(0)) < 4.0)
    brighter = detailed[artery] - plain[artery]
    assert brighter.max() > 10.0
    assert abs(float(np.median(detailed[(plain > 20) & (plain < 45)])) - 31.0) < 5.0


@pytest.mark.parametrize("tilt_deg", [22.0, -15.0])
def test_what_no_tilted_slice_sees_needn_t_be_rendered(tilt_deg: float, monkeypatch: pytest.MonkeyPatch) -> None:
    head, scanner = HeadParameters(seed=8, pose=Pose(shift_mm=(3.0, 12.0, 20.0))), SCANNERS["scanner_d"]
    tilted = SCANNERS["scanner_d"].model_copy(update={"tilts_deg": (tilt_deg,)})
    protocol = tilted.draw(np.random.default_rng(1), head, COARSE)
    assert protocol.tilt_deg == tilt_deg
    sooner = acquire(head, scanner, protocol, np.random.default_rng(0))
    whole = Band(0.0, -1e9, 1e9)
    monkeypatch.setattr(acquisition, "band_under", lambda protocol, step_mm: whole)
    assert np.array_equal(sooner.hu, acquire(head, scanner, protocol, np.random.default_rng(0)).hu)
    low, high = np.array([-90.0, 80.0], np.float32), np.array([30.0, 45.0], np.float32)
    assert Band(0.4, 77.0, 99.0).meets(low, high) == (45.0 + 0.4 * 80.0 >= 77.0)
    assert not Band(0.4, 78.0, 99.0).meets(low, high)


def test_details_follow_from_the_head_and_stay_near_it() -> None:
    points = np.random.default_rng(0).uniform(-70.0, 70.0, (3, 400)).astype(np.float32)
    one, again, other = (Details(HeadParameters(seed=seed, age_years=80)) for seed in (8, 8, 9))
    assert one.traits == again.traits != other.traits
    assert np.array_equal(one.warped(points), again.warped(points))
    moved = np.abs(one.warped(points) - points)
    assert 1.0 < moved.mean() < 6.0
    assert not np.array_equal(one.warped(points), other.warped(points))
    away = np.abs(points[0]) > 25.0
    bent = one.bent(points) - points
    assert not bent[:, away].any()
    assert 0.3 < np.abs(bent[0, ~away]).mean() < 3.0
    assert not bent[1:].any()
    assert one.unevenness(points).min() >= 0.3
    young, old = ([Traits.of(HeadParameters(seed=s, age_years=age)) for s in range(60)] for age in (30, 85))
    assert np.mean([t.wall_calcium > 0 for t in young]) < 0.3 < 0.6 < np.mean([t.wall_calcium > 0 for t in old])


def test_coarse_pixels_are_spread_without_loss() -> None:
    weights = spread(64, 200)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)
    ramp = np.arange(64, dtype=np.float32)
    np.testing.assert_allclose((weights @ ramp)[10:-10], ((np.arange(200) + 0.5) * 0.32 - 0.5)[10:-10], rtol=1e-4)
