"""Masks of voxels, 64 to a machine word (see `bit_words`), so that growing and thinning them costs next to nothing.

A head at 2 mm is 2 million voxels, which is a quarter of a megabyte here: it stays in the cache of a core, and one
step in all directions takes a tenth of a millisecond (50 times less than `scipy.ndimage.binary_dilation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmct.data.bit_words import (
    BITS,
    ONE,
    Bools,
    Words,
    from_bools,
    from_octets,
    to_bools,
    to_cross,
    to_cube,
    whole_grid,
    words_for,
)
from fmct.data.grid import Grid

STEPS_BETWEEN_LOOKS = 4
"""Whether there is anything left to grow into is asked after so many steps, the last of which goes all ways."""


@dataclass(frozen=True, eq=False)
class BitMask:
    """A mask on a grid.

    Attributes:
        words: (Z, Y + 1, X // 64 + 1) contiguous: 64 voxels along x each, the first in the lowest bit; bits beyond the
            grid, of which each row has one at least, and the last row of each plane are 0.
        columns: X, how many voxels there are along x.
    """

    words: Words
    columns: int

    @classmethod
    def of(cls, mask: Bools) -> BitMask:
        """Pack a mask (Z, Y, X)."""
        packed = np.packbits(mask, axis=-1, bitorder="little")
        octets = np.zeros((len(mask), mask.shape[1] + 1, words_for(mask.shape[2]) * BITS // 8), np.uint8)
        octets[:, :-1, : packed.shape[-1]] = packed
        return cls(from_octets(octets), mask.shape[2])

    @classmethod
    def exceeding(cls, values: NDArray[np.int16], threshold: int) -> BitMask:
        """Return where values (Z, Y, X) are greater than a threshold."""
        planes, rows, columns = values.shape
        mask = np.zeros((planes, rows + 1, words_for(columns) * BITS), np.bool_)
        np.greater(values, threshold, out=mask[:, :-1, :columns])
        return cls(from_bools(mask), columns)

    @classmethod
    def box(cls, planes: Bools, rows: Bools, columns: Bools) -> BitMask:
        """Return the voxels of which plane (Z,), row (Y,) and column (X,) are all chosen."""
        line = cls.of(columns[None, None]).words[0, 0]
        chosen = np.logical_and.outer(planes, np.append(rows, False))
        return cls(np.where(chosen[..., None], line, np.uint64(0)), len(columns))

    @classmethod
    def doubled(cls, mask: Bools, shape_zyx: tuple[int, int, int]) -> BitMask:
        """Return a mask on a grid of half the size, every voxel of it taken twice along each axis.

        Args:
            mask: (Z / 2, Y / 2, X / 2), rounded up.
            shape_zyx: of the grid of the whole size.
        """
        planes, rows, columns = shape_zyx
        wide = cls.of(mask.repeat(2, axis=2)[..., :columns]).words
        words = np.zeros((planes, rows + 1, wide.shape[2]), np.uint64)
        for odd in (0, 1):
            words[:, odd:-1:2] = wide[:, : (rows + 1 - odd) // 2].repeat(2, axis=0)[:planes]
        return cls(words, columns)

    def unpacked(self) -> Bools:
        """Return the mask as booleans (Z, Y, X), a part of a larger array."""
        return to_bools(self.words)[:, :-1, : self.columns]

    def halved(self) -> Bools:
        """Return on a grid of half the size (rounded up) where any of the mask is, as booleans."""
        words = self.words[::2].copy()
        words[: len(self.words) // 2] |= self.words[1::2]
        rows = self.shape_zyx[1]
        words[:, 0 : rows - 1 : 2] |= words[:, 1:rows:2]
        words |= words >> ONE
        return to_bools(np.ascontiguousarray(words[:, 0:rows:2]))[..., : self.columns : 2]

    def every_other(self) -> Bools:
        """Return every other voxel along each axis as booleans, the first among them."""
        return to_bools(np.ascontiguousarray(self.words[::2, :-1:2]))[..., : self.columns : 2]

    def occupied(self) -> tuple[Bools, Bools, Bools]:
        """Return which planes (Z,), rows (Y,) and columns (X,) have any of the mask."""
        rows = np.bitwise_or.reduce(self.words, axis=0)
        of_planes, of_rows = (
            np.asarray(words.any(axis=1)) for words in (self.words.reshape(len(self.words), -1), rows[:-1])
        )
        return of_planes, of_rows, to_bools(np.bitwise_or.reduce(rows, axis=0))[: self.columns]

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Number of voxels."""
        return self.words.shape[0], self.words.shape[1] - 1, self.columns

    def __and__(self, other: BitMask) -> BitMask:
        """Return what is in both."""
        return BitMask(self.words & other.words, self.columns)

    def __or__(self, other: BitMask) -> BitMask:
        """Return what is in any."""
        return BitMask(self.words | other.words, self.columns)

    def __sub__(self, other: BitMask) -> BitMask:
        """Return what is in this and not in the other."""
        return BitMask(self.words & ~other.words, self.columns)

    def __invert__(self) -> BitMask:
        """Return all of the grid that isn't in the mask."""
        return BitMask(~self.words & whole_grid(self.words.shape, self.columns), self.columns)

    def count(self) -> int:
        """Return how many voxels are in the mask."""
        return int(np.bitwise_count(self.words).sum())

    def grown(self, steps: int, within: BitMask | None = None) -> BitMask:
        """Return the mask grown by so many voxels, never leaving another mask.

        Steps across faces and steps to all 26 neighbors take turns, faces first: that is close to a ball.
        """
        words, near, spare = self.words.copy(), np.empty_like(self.words), np.empty_like(self.words)
        limit = whole_grid(self.words.shape, self.columns) if within is None else within.words
        for step in range(steps):
            (to_cube if step % 2 else to_cross)(words, near, spare)
            near &= limit
            looks = within is not None and step % STEPS_BETWEEN_LOOKS == STEPS_BETWEEN_LOOKS - 1
            if looks and np.array_equal(words, near):
                break
            words, near = near, words
        return BitMask(words, self.columns)

    def thinned(self, steps: int) -> BitMask:
        """Return the mask without its outermost voxels; beyond the grid it is taken to go on."""
        return ~(~self).grown(steps)

    def closed(self, steps: int) -> BitMask:
        """Return the mask with gaps of twice as many voxels closed; a gap at the grid's end closes against the end."""
        return self.grown(steps).thinned(steps)

    def above(self, plane: int) -> BitMask:
        """Return what lies in an axial plane or above it."""
        words = self.words.copy()
        words[:plane] = 0
        return BitMask(words, self.columns)

    def columns_of(self, length: int) -> BitMask:
        """Return those parts that go on along z for at least so many voxels."""
        reach = powers_up_to(length)
        words = self.words
        for step in reach:
            moved = np.zeros_like(words)
            moved[:-step] = words[step:]
            words = words & moved
        for step in reach:
            moved = words.copy()
            moved[step:] |= words[:-step]
            words = moved
        return BitMask(words, self.columns)


def moved(masks: Sequence[BitMask], grid: Grid, to: Grid) -> list[BitMask]:
    """Return masks on another grid, by the nearest voxel; nothing of them lies beyond their own.

    Args:
        masks: at most eight.
        grid: of the masks.
        to: the other grid.
    """
    z, y, x = (
        np.rint((to.centers_mm(axis) - grid.first_ras_mm[axis]) / grid.spacing_mm).astype(np.intp) for axis in (2, 1, 0)
    )
    planes, rows, columns = grid.shape_zyx
    (z_to, z_from), (y_to, y_from) = overlap(z, planes), overlap(y, rows)
    wide = np.full(words_for(len(x)) * BITS, columns)
    wide[: len(x)] = np.where((x < 0) | (x > columns), columns, x)  # beyond is a spare bit, where nothing is
    together = to_bools(np.ascontiguousarray(masks[0].words[z_from, y_from])).view(np.uint8)
    for number, mask in enumerate(masks[1:], start=1):
        part = to_bools(np.ascontiguousarray(mask.words[z_from, y_from])).view(np.uint8)
        together |= part << np.uint8(number)
    sideways = together.take(wide, axis=2)
    picked = []
    for number in range(len(masks)):
        words = np.zeros((len(z), len(y) + 1, words_for(len(x))), np.uint64)
        narrow = from_bools(sideways & np.uint8(1 << number))
        words[z_to, y_to] = narrow.take(z[z_to] - z_from.start, axis=0).take(y[y_to] - y_from.start, axis=1)
        picked.append(BitMask(words, len(x)))
    return picked


def overlap(places: NDArray[np.intp], count: int) -> tuple[slice, slice]:
    """Return which of some increasing places are among 0, 1, ... count - 1, and the part of those that they span."""
    inside = np.flatnonzero((places >= 0) & (places < count))
    if not len(inside):
        return slice(0, 0), slice(0, 0)
    first, last = inside[[0, -1]]
    return slice(first, last + 1), slice(places[first], places[last] + 1)


def powers_up_to(length: int) -> list[int]:
    """Return steps that, taken one after the other, reach from the first to the last of so many voxels."""
    steps, reached = [], 1
    while reached < length:
        step = min(reached, length - reached)
        steps.append(step)
        reached += step
    return steps
