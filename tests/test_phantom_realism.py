"""Tissues are measured for what they are, and phantoms come near to a real head by the same measures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fmct.benchmarks import phantom_realism
from fmct.benchmarks.phantom_realism import ARCHIVE, COMMAND, REAL, figures, middle_of_head, real_head, stack_of, table
from fmct.benchmarks.tissues import measure_tissues
from fmct.console.command import main
from fmct.data.geometry import SliceStack
from fmct.data.phantom.acquisition import scan
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.scanner import SCANNERS, Overrides

COARSE = Overrides(pixel_mm=1.0, slice_mm=10.0, effects=True)


def ball(noise_hu: float = 3.0, pixel_mm: float = 1.0) -> SliceStack:
    """Brain of 28 HU with fluid within and a rim of 38 under 8 mm of bone, muscle and fat outside, in three slices."""
    along = (np.arange(220) - 109.5) * pixel_mm
    radius = np.hypot(along[:, None], along)
    reach = [radius < edge for edge in (20, 60, 70, 78, 86, 96)]
    hu = np.select(reach, [8.0, 28.0, 38.0, 900.0, 50.0, -95.0], -1000.0)
    planes = hu + np.random.default_rng(0).normal(0.0, noise_hu, (3, *hu.shape))
    origins = np.array([[-109.5, 109.5, 5.0 * k] for k in range(3)])
    steps = (np.array([0.0, -pixel_mm, 0.0]), np.array([pixel_mm, 0.0, 0.0]))
    return SliceStack(np.rint(planes).astype(np.int16), origins, *steps)


def test_tissues_of_a_known_head_are_found() -> None:
    tissues = measure_tissues(ball())
    medians = {name: float(np.median(values)) for name, values in tissues.hu.items()}
    assert medians["white"] == pytest.approx(28.0, abs=0.6)
    assert medians["cortex"] == pytest.approx(38.0, abs=0.6)
    assert medians["csf"] == pytest.approx(8.0, abs=0.6)
    assert medians["muscle"] == pytest.approx(50.0, abs=0.6)
    assert medians["bone"] == pytest.approx(900.0, abs=2.0)
    assert medians["fat"] == pytest.approx(-95.0, abs=2.0)
    assert tissues.contrast_hu == pytest.approx(10.0, abs=1.0)
    assert tissues.cupping_hu == pytest.approx(10.0, abs=1.0)
    assert tissues.noise_hu == pytest.approx(3.0, abs=0.15)
    # White noise: neighbors don't know of each other, as those of a sine of a quarter per pixel.
    assert tissues.noise_frequency == pytest.approx(0.25, abs=0.02)


def test_a_scan_without_a_skull_is_refused() -> None:
    empty = ball()
    with pytest.raises(ValueError, match="no slice shows a closed skull"):
        measure_tissues(SliceStack(np.minimum(empty.hu, 200), empty.origins_ras_mm, *steps_of(empty)))


def steps_of(stack: SliceStack) -> tuple[np.ndarray, np.ndarray]:
    return stack.row_step_ras_mm, stack.column_step_ras_mm


def test_phantoms_are_near_a_real_head(shared: Path) -> None:
    real = real_head(shared / ARCHIVE)
    some = SliceStack(real.hu[8::4], real.origins_ras_mm[8::4], *steps_of(real))
    head = HeadParameters(seed=5, age_years=60, gap_mm=1.6, sulcus_mm=0.8)
    phantom = stack_of(scan(head, SCANNERS["scanner_b"], np.random.default_rng(2), overrides=COARSE, even=True))
    rows = figures({REAL: measure_tissues(some), "scanner_b": measure_tissues(phantom)})
    assert set(rows[REAL]) == set(rows["scanner_b"])
    assert all(rows[REAL][key] == 0.0 for key in rows[REAL] if key.endswith("distance_hu"))
    near = rows["scanner_b"]
    for tissue, most in (("cortex", 5.0), ("white", 4.0), ("csf", 4.0), ("bone", 190.0), ("muscle", 35.0)):
        assert near[f"{tissue}_distance_hu"] < most, tissue
    assert 3.0 < near["contrast_hu"] < 13.0
    assert 3.0 < near["cupping_hu"] < 16.0
    assert len(table(rows).splitlines()) == 11
    assert middle_of_head(some).shape == (170, 230, 190)


def test_command_draws_and_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(phantom_realism, "real_head", lambda archive: ball())
    monkeypatch.setattr(phantom_realism, "SCANNERS", {"scanner_c": SCANNERS["scanner_c"]})
    monkeypatch.setattr(phantom_realism, "SLICE_MM", 10.0)
    monkeypatch.setattr(phantom_realism, "PIXEL_MM", 1.5)
    assert main(COMMAND, ["--out", str(tmp_path / "heads.png"), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {REAL, "scanner_c"}
    assert (tmp_path / "heads.png").read_bytes().startswith(b"\x89PNG")


def test_without_the_real_head_it_says_where_it_was_sought(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND, ["--shared", str(tmp_path)]) == 2
    assert "ge_head_tilt.tar.xz" in capsys.readouterr().err
