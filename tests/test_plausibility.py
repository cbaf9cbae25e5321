"""What is HU and what isn't: the same heads, rightly scaled with all that scanners do to them, and wrongly scaled."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from synthetic_bodies import BODIES
from synthetic_series import head_like

from fmct.data.geometry import PADDING_HU
from fmct.data.phantom.acquisition import scan
from fmct.data.phantom.head import HeadParameters, Pose
from fmct.data.phantom.scanner import SCANNERS, Overrides
from fmct.data.plausibility import implausible_hu

Values = np.ndarray


def phantom(name: str, pixel_mm: float = 1.5, slice_mm: float = 6.0) -> Values:
    head = HeadParameters(seed=8, pose=Pose(pitch_deg=4.0))
    overrides = Overrides(pixel_mm=pixel_mm, slice_mm=slice_mm)
    return scan(head, SCANNERS[name], np.random.default_rng(0), (), overrides).hu


@pytest.fixture(scope="module")
def head() -> Values:
    """A phantom's scan in HU, air measured everywhere."""
    return phantom("scanner_a").astype(np.int32)


def as_int16(values: Values) -> Values:
    return np.clip(np.rint(values), PADDING_HU + 1, 32767).astype(np.int16)


def outside_circle(hu: Values, share: float = 1.0) -> Values:
    """(J, I) what lies outside a circle as wide as a share of the picture."""
    _, rows, columns = hu.shape
    y, x = np.ogrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    return np.hypot(x, y) > share


@pytest.mark.parametrize("name", list(SCANNERS))
def test_phantoms_are_hu(name: str) -> None:
    assert implausible_hu(phantom(name)) is None


@pytest.mark.parametrize("name", [name for name in BODIES if name != "empty_table"])
def test_other_bodies_are_hu_too(name: str) -> None:
    assert implausible_hu(BODIES[name]().hu) is None


def test_small_synthetic_heads_are_hu() -> None:
    assert implausible_hu(head_like(20)) is None


@pytest.mark.parametrize("padding", [PADDING_HU, -32767, -3024, -2000, -1500, -1024, -1000])
def test_padding_of_any_value_is_fine(head: Values, padding: int) -> None:
    padded = head.copy()
    padded[:, outside_circle(head, 0.8)] = padding
    assert implausible_hu(as_int16(padded)) is None


def test_a_tight_crop_is_fine(head: Values) -> None:
    solid = np.argwhere((head > -300).sum(axis=0) > 3)
    (top, left), (bottom, right) = solid.min(axis=0), solid.max(axis=0)
    assert implausible_hu(as_int16(head[:, top : bottom - 30, left : right + 1])) is None


def test_metal_noise_clamping_and_thin_bone_are_fine(head: Values) -> None:
    rng = np.random.default_rng(0)
    metal = head + np.where(rng.random(head.shape) < 0.002, rng.normal(0, 2000, head.shape), 0)
    metal[:, 60:64, 80:84] = 30000
    assert implausible_hu(as_int16(metal)) is None
    for noise_hu in (30, 100, 200):
        noisy = as_int16(head + rng.normal(0, noise_hu, head.shape))
        assert implausible_hu(noisy) is None
        assert implausible_hu(np.clip(noisy, -1024, 3071)) is None
    assert implausible_hu(as_int16(np.clip(head, -1000, 1500))) is None
    newborn = np.where(head > 250, 250 + (head - 250) * 0.2, head)
    assert implausible_hu(as_int16(newborn)) is None


def test_a_brain_without_its_skull_is_hu_where_the_background_is_air(head: Values) -> None:
    brain = (head > 0) & (head < 90)
    assert implausible_hu(as_int16(np.where(brain, head, head.min()))) is not None  # air of a single value
    soft = np.where(brain, head, np.minimum(head, -940 + head % 13))
    assert implausible_hu(as_int16(soft)) is None


WRONG: dict[str, tuple[Callable[[Values], Values], str]] = {
    "raw scanner values": (lambda hu: hu + 1024, "no air"),
    "intercept 300 too high": (lambda hu: hu + 300, "no air"),
    "intercept 150 too high": (lambda hu: hu + 150, "tissue isn't near 0"),
    "intercept 200 too low": (lambda hu: hu - 200, "air isn't near -1000"),
    "intercept 300 too low": (lambda hu: hu - 300, "air isn't near -1000"),
    "intercept twice": (lambda hu: hu - 1024, "air isn't near -1000"),
    "slope doubled": (lambda hu: 2 * hu, "air isn't near -1000"),
    "slope doubled, then the intercept": (lambda hu: 2 * (hu + 1024) - 1024, "tissue isn't near 0: .* 10[89]"),
    "slope halved": (lambda hu: hu / 2, "no air"),
    "inverted": (lambda hu: -hu, "air isn't near -1000|tissue isn't near 0"),
    "inverted before rescaling": (lambda hu: 2047 - hu, "no air"),
    "8 bits": (lambda hu: np.clip((hu + 1024) / 16, 0, 255), "no air"),
    "brain window": (lambda hu: np.clip(hu, 0, 80), "no air: .* exactly 0"),
    "soft window": (lambda hu: np.clip(hu, -100, 300), "no air: .* exactly -100"),
    "no bone left": (lambda hu: np.clip(hu, -1000, 100), "cut off above.* exactly 100"),
    "little bone left": (lambda hu: np.clip(hu, -1024, 400), "cut off above.* exactly 400"),
    "background of 0": (lambda hu: np.where(hu < -300, 0, hu), "no air: .* exactly 0"),
    "standardized": (lambda hu: (hu - hu.mean()) / hu.std(), "no air"),
    "no tissue": (lambda hu: np.where((hu > -500) & (hu < 700), -1000, hu), "no tissue"),
    "constant": (lambda hu: 0 * hu + 7, "all values are 7"),
    "padding": (lambda hu: 0 * hu - 50000, "all values are -32767"),
}


@pytest.mark.parametrize(("wrong", "reason"), WRONG.values(), ids=WRONG)
def test_what_is_no_hu_is_refused(head: Values, wrong: Callable[[Values], Values], reason: str) -> None:
    found = str(implausible_hu(as_int16(wrong(head))))
    assert re.search(reason, found), found
    assert found.startswith("all values") or re.search(r"values run from -?\d+ to -?\d+", found)


FILLED = {
    "raw scanner values": "one value",
    "intercept 300 too high": "tissue isn't near 0",
    "intercept 200 too low": "tissue isn't near 0",
    "slope halved": "tissue isn't near 0",
    "inverted before rescaling": "one value",
    "8 bits": "one value",
    "brain window": "one value",
    "soft window": "one value",
    "standardized": "one value",
}


@pytest.mark.parametrize(("name", "reason"), FILLED.items(), ids=FILLED)
def test_filling_the_corners_with_air_does_not_make_it_hu(head: Values, name: str, reason: str) -> None:
    """As when a file is resampled by a program that takes -1024 for the background of any CT."""
    values = np.clip(as_int16(WRONG[name][0](head)), -1024, 3071)
    values[:, outside_circle(head)] = -1024
    assert reason in str(implausible_hu(values))


def test_nothing_but_padding_is_refused() -> None:
    assert "padding" in str(implausible_hu(np.full((8, 16, 16), PADDING_HU, np.int16)))
    mostly = np.full((8, 16, 16), PADDING_HU, np.int16)
    mostly[:, 3:9, 3:9] = head_like(20)[6:14, 13:19, 17:23]
    assert "no air" in str(implausible_hu(mostly))


def test_an_empty_table_has_no_tissue() -> None:
    hu = BODIES["empty_table"]().hu
    assert "no tissue" in str(implausible_hu(hu[:, 30:]))
