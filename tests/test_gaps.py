"""Missing slices are found; changes of thickness, tilted blocks and rounded positions are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slice_headers import stack_at
from synthetic_series import tilted

from fmct.data.gaps import holes_in
from fmct.data.series_rules import gap


def positions(*gaps: float) -> np.ndarray:
    return np.cumsum([0.0, *gaps])


@pytest.mark.parametrize(
    "gaps",
    [
        [5] * 20,
        [2.5] * 10 + [5] * 10,  # thin base, thick vertex
        [5] * 10 + [2.5] * 10,
        [2.5] * 10 + [7.5] * 10,
        [3] * 6 + [6] * 4 + [3] * 6,  # a thicker block between thinner ones
        [4] * 14 + [1.08] + [7] * 12,  # the gantry was tilted anew between two blocks
        [4] * 10 + [12] + [7] * 10,  # a wide seam between unequal blocks: there is nothing to compare it with
        [5] * 10 + [7.5] + [5] * 10,  # one and a half
        [10] + [5] * 10,  # nothing below it to compare with
        [5] * 10 + [10],
        [0.6, 0.7, 0.6, 0.6] * 10,  # 0.625 mm, rounded
        [5, 5.4, 4.6, 5.2] * 5,
        [3, 3],
        [5],
    ],
)
def test_what_is_no_hole(gaps: list[float]) -> None:
    assert holes_in(positions(*gaps)) == []
    assert holes_in(positions(*gaps[::-1])) == []


@pytest.mark.parametrize(
    ("gaps", "missing"),
    [
        ([5] * 10 + [10] + [5] * 10, {10: 1}),
        ([5] * 10 + [10.4] + [5] * 10, {10: 1}),
        ([5] * 10 + [25] + [5] * 10, {10: 4}),
        ([5, 10, 5], {1: 1}),
        ([5] * 5 + [10, 10] + [5] * 5, {5: 1, 6: 1}),
        ([5] * 5 + [10, 15, 10] + [5] * 5, {5: 1, 6: 2, 7: 1}),
        ([2.5] * 6 + [5] + [2.5] * 6 + [7.5] * 6 + [15] + [7.5] * 6, {6: 1, 19: 1}),
        ([0.6, 0.7] * 5 + [1.3] + [0.7, 0.6] * 5, {10: 1}),
        ([0.6, 0.7] * 5 + [1.2] + [0.6, 0.7] * 5, {10: 1}),
    ],
)
def test_what_is_a_hole(gaps: list[float], missing: dict[int, int]) -> None:
    holes = holes_in(positions(*gaps))
    assert {hole.after: hole.missing for hole in holes} == missing
    assert [hole.gap_mm for hole in holes] == pytest.approx([gaps[index] for index in missing])
    mirrored = {len(gaps) - 1 - index: count for index, count in missing.items()}
    assert {hole.after: hole.missing for hole in holes_in(positions(*gaps[::-1]))} == mirrored


@given(
    step=st.floats(0.4, 12),
    slices=st.integers(10, 80),
    start=st.floats(-500, 500),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_any_lost_run_of_an_even_stack_is_found(step: float, slices: int, start: float, data: st.DataObject) -> None:
    first = data.draw(st.integers(2, slices - 4))
    lost = data.draw(st.integers(1, min(3, slices - 2 - first)))
    for decimals in (5, 2):
        whole = np.round(start + np.arange(slices) * step, decimals)
        assert holes_in(whole) == []
        (hole,) = holes_in(np.delete(whole, np.arange(first, first + lost)))
        assert (hole.after, hole.missing) == (first - 1, lost)


@given(thin=st.floats(0.5, 5), ratio=st.floats(1, 6), below=st.integers(3, 20), above=st.integers(4, 20))
@settings(max_examples=200, deadline=None)
def test_a_change_of_thickness_is_no_hole(thin: float, ratio: float, below: int, above: int) -> None:
    assert holes_in(positions(*[thin] * below, *[thin * ratio] * above)) == []
    assert holes_in(positions(*[thin * ratio] * above, *[thin] * below)) == []
    assert holes_in(positions(*[thin] * below, *[thin * ratio] * above, *[thin] * below)) == []


def test_the_detail_says_where_in_the_body_it_is() -> None:
    z = np.delete(np.arange(20) * 5.0 - 40, [7, 8, 15])
    assert gap(stack_at(z)) == (
        "slice missing at z = -2.5 mm: a gap of 15.0 mm between gaps of 5.0 mm (2 missing), and 1 more such gaps"
    )
    angle = np.cos(np.radians(18.5))
    found = gap(stack_at(z, orientation_lps=tilted(18.5)))
    assert found is not None
    assert f"at z = -2.5 mm: a gap of {15 * angle:.1f} mm between gaps of {5 * angle:.1f} mm" in found
    assert gap(stack_at(np.arange(20) * 5.0)) is None
