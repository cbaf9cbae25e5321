"""Which tissue on a coarse grid belongs to a head: dividing it from what touches it, and what hangs on to it.

Lengths are in mm; masks are on a grid whose voxels grow to S, A and R.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmct.data.bit_masks import BitMask
from fmct.data.grid import Grid
from fmct.data.recognition import EnclosedBrain

THINNING_MM = 6.0
"""Thinner than twice this are table tops, head rests, tubes and ears."""
DIVIDING_MM = 14.0
"""Narrower than twice this is the bridge between a head and an arm that lies against it; no part of a head is."""
SMALLEST_RIVAL_ML = 15.0
"""Of what is left of an arm after so much thinning."""
BEYOND_BRAIN_MM = (30.0, 25.0)
"""Sideways and upwards: what reaches further from the brain, being a piece of its own, is no head."""
UNDER_BRAIN_MM = 20.0
"""Arms are looked for no deeper, where shoulders join them with the head."""
UPRIGHT_MM = 64.0
"""Ears are shorter, and lean."""
SEGMENT_MM, GAP_MM = 24.0, 72.0
"""Of an interrupted wall."""
REGROWTH_MM = 18.0
EAR_MM = 28.0
"""How far from the head an ear or a nose reaches, along its surface."""
PRESSED_EAR_MM = 14.0
"""The same where it is pressed to something that goes on."""
EARS_ML = 80.0
SOLID_MM = 8.0
HOLLOW_MM = 20.0
"""What lies in nostrils, mouth and eye sockets, which may be open as wide as this, belongs to the head."""
CROWN_MM = 25.0
BONE_HU, BONE_WEIGHT, LEAST_BONE_SHARE = 300, 10, 0.5
SHELL_HU = -700
OPEN_SLICES_MM = 60.0
IN_PLANE = np.zeros((3, 3, 3), bool)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)
"""Neighbors within an axial plane."""


def standing(tissue: BitMask, voxel_mm: float) -> BitMask:
    """Return what is thin and goes straight up further than an ear: walls of a head rest, tables, posts.

    A wall may be interrupted, or covered by an ear that is pressed to it, as long as it goes on in the same place.
    """
    loose = tissue - opened(tissue, THINNING_MM, voxel_mm)
    segment, gap, upright, skin = (round(length / voxel_mm) for length in (SEGMENT_MM, GAP_MM, UPRIGHT_MM, THINNING_MM))
    air = ~loose.columns_of(segment).grown(1)  # a wall may lean a little
    padded = np.pad(air.words, ((gap, gap), (0, 0), (0, 0)), constant_values=~np.uint64(0))
    spans = ~BitMask(BitMask(padded, air.columns).columns_of(gap).words[gap:-gap], air.columns)
    covered = spans.columns_of(upright + segment) & (tissue - tissue.thinned(skin))
    return covered | (loose.columns_of(upright).grown(1) & loose)


def opened(tissue: BitMask, thickness_mm: float, voxel_mm: float) -> BitMask:
    """Return tissue without what is thinner than twice a thickness; what is left has its surface as it was."""
    thinning = round(thickness_mm / voxel_mm)
    return tissue.thinned(thinning).grown(thinning + 1, within=tissue)


def piece_around(tissue: BitMask, grid: Grid, brain: EnclosedBrain) -> BitMask | None:
    """Return the piece of tissue that is the head around a brain, without what is thin; None where there is none.

    Around the crown, where a head is plump, more counts as thin: fingers and arms do.
    """
    thinning, dividing = (round(length / grid.spacing_mm) for length in (THINNING_MM, DIVIDING_MM))
    core = tissue.thinned(thinning)
    deep = core.thinned(dividing - thinning)
    found = divided(deep, core, grid, brain)
    if found is None:
        return None
    head, piece = found
    crown = crown_of(grid, brain)
    return (piece.grown(thinning + 1, within=tissue) - crown) | head.grown(dividing + 1, within=tissue)


def crown_of(grid: Grid, brain: EnclosedBrain) -> BitMask:
    """Return the part of space where there is no face: over the top of the brain, no further to the front than it."""
    assert brain.high_ras_mm is not None
    _, y, z = (grid.centers_mm(axis) for axis in range(3))
    return BitMask.box(z > brain.high_ras_mm[2] - CROWN_MM, y < brain.high_ras_mm[1], np.ones(grid.shape_zyx[2], bool))


def divided(deep: BitMask, core: BitMask, grid: Grid, brain: EnclosedBrain) -> tuple[BitMask, BitMask] | None:
    """Return the piece with the brain, and the part of the core that belongs to it; None where no piece has it.

    Args:
        deep: the core thinned further, so that its parts come apart; pieces far from the brain are its rivals.
        core: tissue without what is thin; each part of it goes to whichever piece reaches it first.
        grid: of the masks.
        brain: where the brain is.
    """
    assert brain.low_ras_mm is not None
    assert brain.high_ras_mm is not None
    low, high = (grid.indices_xyz(edge) / 2 for edge in (brain.low_ras_mm, brain.high_ras_mm))
    beside = deep.above(max(int(2 * low[2]) - round(UNDER_BRAIN_MM / grid.spacing_mm), 0))
    pieces, count = ndimage.label(beside.every_other())
    places = np.rint(grid.indices_xyz(brain.pieces_ras_mm) / 2).astype(int)[:, ::-1]
    inside = ((places >= 0) & (places < pieces.shape)).all(axis=1)
    votes = np.bincount(pieces[tuple(places[inside].T)], minlength=count + 1)[1:]
    if not votes.any():
        return None
    head = 1 + int(votes.argmax())
    rivals = [number for number in range(1, count + 1) if number != head]
    sizes_ml = np.bincount(pieces.ravel()) * (2 * grid.spacing_mm) ** 3 / 1000
    boxes = ndimage.find_objects(pieces)
    sideways, upwards = (length / (2 * grid.spacing_mm) for length in BEYOND_BRAIN_MM)

    def is_apart(number: int) -> bool:
        z, _, x = boxes[number - 1]
        middle = (x.start + x.stop - 1) / 2
        return bool(middle < low[0] - sideways or middle > high[0] + sideways or z.start > high[2] + upwards)

    rivals = [number for number in rivals if sizes_ml[number] >= SMALLEST_RIVAL_ML and is_apart(number)]

    def grow(numbers: list[int]) -> BitMask:
        chosen = np.zeros(count + 1, bool)
        chosen[numbers] = True
        return BitMask.doubled(chosen[pieces], deep.shape_zyx) & deep

    found = grow([head])
    if not rivals:
        return found, found.grown(max(core.shape_zyx), within=core)
    mine, others, count_before = found, grow(rivals), 0
    while mine.count() > count_before:
        count_before = mine.count()
        mine = mine.grown(1, within=core - others)
        others = others.grown(1, within=core - mine)
    return found, mine


def solid_and_parts(
    body: BitMask, tissue: BitMask, crown: BitMask, ears: BitMask, voxel_mm: float
) -> tuple[BitMask, BitMask]:
    """Return a head with its cavities filled, and which of it is skin, ears, nose and what is thin within a face.

    Args:
        body: the piece.
        tissue: what it may grow into.
        crown: where nothing but skin is to be added.
        ears: where ears and nose are kept although something goes on from them.
        voxel_mm: of all masks.
    """
    regrown = body | body.grown(round(REGROWTH_MM / voxel_mm), within=body | (tissue - crown))
    solid = opened(filled(regrown), SOLID_MM, voxel_mm)
    surface = solid.grown(1)
    loose = tissue - crown - surface
    at_skin = solid.grown(2, within=surface | loose) & loose
    parts = at_skin.grown(round(EAR_MM / voxel_mm), within=loose)
    longer = parts.grown(1, within=loose) - parts
    if longer.count() or parts.count() * voxel_mm**3 / 1000 > EARS_ML:
        pieces, _ = ndimage.label(parts.unpacked(), np.ones((3, 3, 3)))
        boxes = ndimage.find_objects(pieces)
        longest = [max(side.stop - side.start for side in box) * voxel_mm for box in boxes]
        small = np.array([False, *(length <= UPRIGHT_MM for length in longest)])
        small[np.unique(pieces[longer.grown(1).unpacked()])] = False
        parts = BitMask.of(small[pieces]) | at_skin.grown(round(PRESSED_EAR_MM / voxel_mm), within=loose & ears)
    parts |= tissue & (surface | solid.closed(round(HOLLOW_MM / 2 / voxel_mm)))
    return filled(solid | parts), parts


def largest_body(hu: NDArray[np.int16], tissue: BitMask, voxel_mm: float) -> BitMask | None:
    """Return the largest piece of tissue, for where no brain says which one is the head; bone counts more than tissue.

    A hollow skull (a phantom) falls apart when thinned: where most bone isn't in the piece, it is filled first.

    Args:
        hu: (Z, Y, X).
        tissue: what of it is tissue.
        voxel_mm: of both.
    """
    bone = hu > BONE_HU
    body = heaviest(tissue, bone, voxel_mm)
    if body is None or np.count_nonzero(bone & body.unpacked()) < LEAST_BONE_SHARE * np.count_nonzero(bone):
        body = heaviest(filled(BitMask.exceeding(hu, SHELL_HU)), bone, voxel_mm)
        return None if body is None else closed_upwards(body, voxel_mm)
    return body


def heaviest(tissue: BitMask, bone: NDArray[np.bool_], voxel_mm: float) -> BitMask | None:
    """Return the piece that weighs most of those that stay in one when thin things come off."""
    thinning = round(THINNING_MM / voxel_mm)
    core = tissue.thinned(thinning)
    pieces, count = ndimage.label(core.unpacked())
    if not count:
        return None
    weights = np.bincount(pieces.ravel()) + (BONE_WEIGHT - 1) * np.bincount(pieces[bone], minlength=count + 1)
    heavy = BitMask.of(pieces == 1 + int(weights[1:].argmax()))
    return heavy.grown(thinning + 1, within=tissue)


def closed_upwards(mask: BitMask, voxel_mm: float) -> BitMask:
    """Return the mask with gaps between axial slices closed, where a shell was open and so could not be filled."""
    gap = round(OPEN_SLICES_MM / voxel_mm)
    padded = np.pad(mask.words, ((gap, gap), (0, 0), (0, 0)))
    open_air = (~BitMask(padded, mask.columns)).columns_of(gap)
    return ~BitMask(open_air.words[gap:-gap], mask.columns)


def filled(mask: BitMask, closing: int = 2) -> BitMask:
    """Return the mask with its cavities (sinuses, airways, a hollow skull) filled, axial plane by axial plane.

    Cavities are looked for in voxels of twice the size, after gaps are closed.
    """
    closed = mask.closed(closing)
    air, _ = ndimage.label(np.pad(~closed.halved(), ((0, 0), (1, 1), (1, 1)), constant_values=True), IN_PLANE)
    outside = np.zeros(int(air.max()) + 1, bool)
    outside[np.unique(air[:, 0])] = True
    holes = (~outside[air] & (air > 0))[:, 1:-1, 1:-1]
    beyond = ~(closed | BitMask.doubled(holes, mask.shape_zyx).grown(closing + 1))
    return ~beyond.grown(3 * closing, within=~mask)  # where the gaps were, air comes back in
