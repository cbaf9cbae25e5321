"""Words that hold 64 voxels of a mask each: packing, unpacking, and steps to all neighbors.

A step to a neighbor, along whichever axis, is one shift of all words in flat memory. Spare bits at the end of each row
and a spare row at the end of each plane, which are 0, keep it from reaching around an edge.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BITS = 64
ONE, LAST = np.uint64(1), np.uint64(BITS - 1)
Words = NDArray[np.uint64]
Bools = NDArray[np.bool_]


def words_for(columns: int) -> int:
    """Return how many words a row takes: one bit at least is spare."""
    return columns // BITS + 1


@lru_cache(maxsize=8)
def whole_grid(shape: tuple[int, ...], columns: int) -> Words:
    """Return the words of a mask that has all voxels of a grid, not to be written to."""
    words = np.full(shape, ~np.uint64(0))
    words[..., -1] = (ONE << np.uint64(columns % BITS)) - ONE
    words[:, -1] = 0
    words.flags.writeable = False
    return words


def from_bools(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> Words:
    """Pack rows (..., X) of whole words; any value but 0 counts."""
    octets = np.packbits(mask.reshape(-1), bitorder="little")
    return from_octets(octets.reshape(*mask.shape[:-1], mask.shape[-1] // 8))


def from_octets(octets: NDArray[np.uint8]) -> Words:
    """Return bytes, the first of which has the first voxels, as words."""
    return octets.view("<u8").astype(np.uint64, copy=False)


def to_bools(words: Words) -> Bools:
    """Unpack contiguous words (..., W) to (..., 64 W)."""
    octets = words.astype("<u8", copy=False).reshape(-1).view(np.uint8)
    return np.unpackbits(octets, bitorder="little").view(np.bool_).reshape(*words.shape[:-1], words.shape[-1] * BITS)


def sideways(words: Words, out: Words, spare: Words) -> None:
    """Write flat words and their neighbors along x. Here and below, memory is given: taking it anew would cost more."""
    np.left_shift(words, ONE, out=spare)
    np.bitwise_or(words, spare, out=out)
    np.right_shift(words, ONE, out=spare)
    out |= spare
    np.right_shift(words[:-1], LAST, out=spare[1:])
    out[1:] |= spare[1:]
    np.left_shift(words[1:], LAST, out=spare[:-1])
    out[:-1] |= spare[:-1]


def both_ways(words: Words, step: int, out: Words) -> None:
    """Add flat words moved by a step up and down."""
    out[step:] |= words[:-step]
    out[:-step] |= words[step:]


def to_cross(words: Words, out: Words, spare: Words) -> None:
    """Write the mask and its six neighbors across faces; what lies beyond the grid has to be cleared."""
    row, plane = words.shape[2], words.shape[1] * words.shape[2]
    words, out, spare = (array.reshape(-1) for array in (words, out, spare))
    sideways(words, out, spare)
    both_ways(words, row, out)
    both_ways(words, plane, out)


def to_cube(words: Words, out: Words, spare: Words) -> None:
    """Write the mask and all 26 neighbors, one axis after the other; what lies beyond the grid has to be cleared."""
    row, plane = words.shape[2], words.shape[1] * words.shape[2]
    words, out, spare = (array.reshape(-1) for array in (words, out, spare))
    sideways(words, out, spare)
    np.copyto(spare, out)
    both_ways(out, row, spare)
    np.copyto(out, spare)
    both_ways(spare, plane, out)
