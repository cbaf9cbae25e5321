"""Masks of voxels, 64 to a machine word, so that growing and thinning them costs next to nothing.

A head at 2 mm is 2 million voxels, which is a quarter of a megabyte here: it stays in the cache of a core, and one
step in all directions takes a sixth of a millisecond (32 times less than `scipy.ndimage.binary_dilation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmct.data.grid import Grid

BITS = 64
Words = NDArray[np.uint64]
Bools = NDArray[np.bool_]
STEPS_BETWEEN_LOOKS = 4
"""Whether there is anything left to grow into is asked after so many steps, the last of which goes all ways."""
ONE, LAST = np.uint64(1), np.uint64(BITS - 1)


@dataclass(frozen=True, eq=False)
class BitMask:
    """A mask on a grid.

    Attributes:
        words: (Z, Y, W) 64 voxels along x each, the first in the lowest bit; bits beyond the grid are 0.
        columns: X, how many voxels there are along x.
    """

    words: Words
    columns: int

    @classmethod
    def of(cls, mask: Bools) -> BitMask:
        """Pack a mask (Z, Y, X)."""
        octets = np.zeros((*mask.shape[:2], -(-mask.shape[2] // BITS) * BITS // 8), np.uint8)
        packed = np.packbits(mask, axis=-1, bitorder="little")
        octets[..., : packed.shape[-1]] = packed
        return cls(octets.view("<u8").astype(np.uint64, copy=False), mask.shape[2])

    def unpacked(self) -> Bools:
        """Return the mask as booleans (Z, Y, X)."""
        octets = np.ascontiguousarray(self.words.astype("<u8", copy=False)).view(np.uint8)
        return np.unpackbits(octets, axis=-1, count=self.columns, bitorder="little").view(np.bool_)

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Number of voxels."""
        return self.words.shape[0], self.words.shape[1], self.columns

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
        return BitMask(within_grid(~self.words, self.columns), self.columns)

    def count(self) -> int:
        """Return how many voxels are in the mask."""
        return int(np.bitwise_count(self.words).sum())

    def grown(self, steps: int, within: BitMask | None = None) -> BitMask:
        """Return the mask grown by so many voxels, never leaving another mask.

        Steps across faces and steps to all 26 neighbors take turns, faces first: that is close to a ball.
        """
        words, near, spare = self.words.copy(), np.empty_like(self.words), np.empty_like(self.words)
        for step in range(steps):
            (to_cube if step % 2 else to_cross)(words, near, spare)
            if within is not None:
                near &= within.words
                if step % STEPS_BETWEEN_LOOKS == STEPS_BETWEEN_LOOKS - 1 and np.array_equal(words, near):
                    break
            words, near = within_grid(near, self.columns), words
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
    together = np.zeros(tuple(count + 2 for count in grid.shape_zyx), np.uint8)
    for number, mask in enumerate(masks):
        together[1:-1, 1:-1, 1:-1] |= mask.unpacked().view(np.uint8) << np.uint8(number)
    z, y, x = (
        np.clip(np.rint((to.centers_mm(axis) - grid.first_ras_mm[axis]) / grid.spacing_mm), -1, count).astype(int) + 1
        for axis, count in zip((2, 1, 0), grid.shape_zyx, strict=True)
    )
    sideways = together.take(x, axis=2)
    picked = [BitMask.of((sideways & np.uint8(1 << number)).view(np.bool_)) for number in range(len(masks))]
    return [BitMask(mask.words.take(z, axis=0).take(y, axis=1), len(x)) for mask in picked]


def within_grid(words: Words, columns: int) -> Words:
    """Clear the bits beyond the grid, in place."""
    used = columns % BITS
    if used:
        words[..., -1] &= (ONE << np.uint64(used)) - ONE
    return words


def sideways(words: Words, out: Words, spare: Words) -> None:
    """Write the mask and its neighbors along x. Here and below, memory is given: taking it anew would cost more."""
    np.left_shift(words, ONE, out=spare)
    np.bitwise_or(words, spare, out=out)
    np.right_shift(words, ONE, out=spare)
    out |= spare
    if words.shape[-1] > 1:
        out[..., 1:] |= words[..., :-1] >> LAST
        out[..., :-1] |= words[..., 1:] << LAST


def to_cross(words: Words, out: Words, spare: Words) -> None:
    """Write the mask and its six neighbors across faces."""
    sideways(words, out, spare)
    out[1:] |= words[:-1]
    out[:-1] |= words[1:]
    out[:, 1:] |= words[:, :-1]
    out[:, :-1] |= words[:, 1:]


def to_cube(words: Words, out: Words, spare: Words) -> None:
    """Write the mask and all 26 neighbors, one axis after the other."""
    sideways(words, out, spare)
    np.copyto(spare, out)
    spare[:, 1:] |= out[:, :-1]
    spare[:, :-1] |= out[:, 1:]
    np.copyto(out, spare)
    out[1:] |= spare[:-1]
    out[:-1] |= spare[1:]


def powers_up_to(length: int) -> list[int]:
    """Return steps that, taken one after the other, reach from the first to the last of so many voxels."""
    steps, reached = [], 1
    while reached < length:
        step = min(reached, length - reached)
        steps.append(step)
        reached += step
    return steps
