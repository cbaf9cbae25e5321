"""What a head looks like, coarsely: numbers that stay the same when a scan is reconstructed or cropped anew.

Another kernel, slice thickness or crop changes fine detail and where the head lies in its volume. So a fingerprint is
taken of bone, smoothed, relative to the head's own place: the centroid of its uppermost part, which scans that end at
different heights share. Two volumes that look alike are then compared in finer detail, aligned by cross-correlation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.int16]
Array = NDArray[np.float32]

VERSION = 1
BLOCK_MM = 3.0
CRANIUM_MM = 120.0
SMALLEST_SECTION_MM2 = 2000.0
AIR_HU, TISSUE_HU, LEAST_TISSUE = -1000, 0, 0.3
LOWEST_HU, HIGHEST_HU = 0, 1000


@dataclass(frozen=True)
class Look:
    """How closely a head is looked at.

    Attributes:
        block_mm: size of the blocks that it is averaged over first.
        band_mm: standard deviations of the two blurs, of which the difference is taken.
        step_mm: of the grid that is sampled.
        half: grid points on each side of the center, along z, y and x.
    """

    block_mm: float
    band_mm: tuple[float, float]
    step_mm: float
    half: tuple[int, int, int]

    def grid(self, center_mm: NDArray[np.float64], block_mm: float) -> NDArray[np.float64]:
        """Return the points of the grid, (3, Z, Y, X), in blocks of some size."""
        axes = [
            (c + np.arange(-n, n + 1) * self.step_mm) / block_mm - 0.5
            for c, n in zip(center_mm, self.half, strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"))


COARSE = Look(block_mm=6.0, band_mm=(6.0, 20.0), step_mm=12.0, half=(4, 7, 5))
FINE = Look(block_mm=3.0, band_mm=(3.0, 8.0), step_mm=3.0, half=(20, 32, 26))
LENGTH = int(np.prod([2 * n + 1 for n in COARSE.half]))


def thinned(hu: Volume, spacing_mm: float, low: float, high: float, size_mm: float = BLOCK_MM) -> tuple[Array, float]:
    """Return means over blocks, HU clipped before, and the blocks' size in mm.

    Args:
        hu: (Z, Y, X) int16.
        spacing_mm: of its voxels.
        low: lowest HU.
        high: highest HU.
        size_mm: of the blocks, as nearly as whole voxels allow.
    """
    n = max(1, round(size_mm / spacing_mm))
    z, y, x = (side // n for side in hu.shape)
    clipped = np.clip(hu[: z * n, : y * n, : x * n], low, high)
    total = np.zeros((z, y, x), np.int32)
    for offset in np.ndindex(n, n, n):
        total += clipped[offset[0] :: n, offset[1] :: n, offset[2] :: n]
    return (total / np.float32(n**3)).astype(np.float32), n * spacing_mm


def center_of(hu: Volume, spacing_mm: float) -> NDArray[np.float64] | None:
    """Return the centroid (z, y, x) of the head's uppermost part, in mm from the corner; None without a head."""
    tissue, step_mm = thinned(hu, spacing_mm, AIR_HU, TISSUE_HU)
    tissue -= AIR_HU
    tissue /= TISSUE_HU - AIR_HU
    tissue[tissue < LEAST_TISSUE] = 0
    planes = np.flatnonzero(tissue.sum(axis=(1, 2)) * step_mm**2 > SMALLEST_SECTION_MM2)
    if not len(planes):
        return None
    tissue[: max(int(planes[-1] - CRANIUM_MM / step_mm), 0)] = 0
    profiles = [tissue.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    return np.array([(p * (np.arange(len(p)) + 0.5)).sum() / p.sum() * step_mm for p in profiles])


def around(hu: Volume, spacing_mm: float, center_mm: NDArray[np.float64], look: Look) -> Array:
    """Return bone without its coarsest and finest detail, on a grid around a center.

    Args:
        hu: (Z, Y, X) int16.
        spacing_mm: of its voxels.
        center_mm: as `center_of` returns it.
        look: how closely.
    """
    bone, block_mm = thinned(hu, spacing_mm, LOWEST_HU, HIGHEST_HU, look.block_mm)
    fine, coarse = (ndimage.gaussian_filter(bone, width / block_mm, mode="nearest") for width in look.band_mm)
    grid = look.grid(center_mm, block_mm)
    sampled: Array = ndimage.map_coordinates(fine - coarse, grid, order=1, mode="nearest")
    return sampled


def fingerprint(hu: Volume, spacing_mm: float) -> Array | None:
    """Return a volume's fingerprint, (LENGTH,) float32 with mean 0 and norm 1; None where no head is to be seen.

    The scalar product of two fingerprints is their correlation.

    Args:
        hu: (Z, Y, X) int16, indices growing to S, A and R.
        spacing_mm: of its voxels, the same on all axes.
    """
    center = center_of(hu, spacing_mm)
    if center is None:
        return None
    values = around(hu, spacing_mm, center, COARSE).ravel()
    values -= values.mean()
    norm = float(np.linalg.norm(values))
    return values / norm if norm > 0 else None


def detail(hu: Volume, spacing_mm: float) -> tuple[Array, NDArray[np.bool_]] | None:
    """Return bone in finer detail around the head's center, and where the head is; None where there is none.

    Returns:
        Two arrays of one shape, 3 mm apart.
    """
    center = center_of(hu, spacing_mm)
    if center is None:
        return None
    tissue, block_mm = thinned(hu, spacing_mm, AIR_HU, TISSUE_HU)
    grid = FINE.grid(center, block_mm)
    head = ndimage.map_coordinates(tissue, grid, order=1, cval=AIR_HU) > AIR_HU + LEAST_TISSUE * (TISSUE_HU - AIR_HU)
    return around(hu, spacing_mm, center, FINE), head


def similarity(one: tuple[Array, NDArray[np.bool_]], other: tuple[Array, NDArray[np.bool_]]) -> float:
    """Return how alike two heads are in detail, 1 for the same: their correlation, once they lie on each other.

    Args:
        one: as `detail` returns it.
        other: the same of the other.

    Returns:
        The correlation over the planes that both scans cover, within either head; 0 where they share none.
    """
    (a, head_a), (b, head_b) = one, other
    shift = best_shift(a, b)
    moved = ndimage.shift(b, shift, order=1, mode="nearest")
    head_moved = ndimage.shift(head_b.astype(np.float32), shift, order=1) > 0.5
    planes = np.logical_and(head_a.any(axis=(1, 2)), head_moved.any(axis=(1, 2)))
    mask = head_a | head_moved
    mask &= ndimage.binary_erosion(planes, iterations=2)[:, None, None]
    if not mask.any():
        return 0.0
    x, y = (values[mask] - values[mask].mean() for values in (a, moved))
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm > 0 else 0.0


def best_shift(a: Array, b: Array) -> NDArray[np.float64]:
    """Return by how many grid points the second is to be moved to lie on the first: the peak of their correlation."""
    spectrum = np.fft.rfftn(a) * np.conj(np.fft.rfftn(b))
    correlation = np.fft.irfftn(spectrum, a.shape, axes=(0, 1, 2))
    peak = [int(index) for index in np.unravel_index(int(correlation.argmax()), correlation.shape)]
    shift = []
    for axis, size in enumerate(correlation.shape):
        neighbors = [[*peak[:axis], (peak[axis] + step) % size, *peak[axis + 1 :]] for step in (-1, 0, 1)]
        before, top, after = (float(correlation[tuple(index)]) for index in neighbors)
        curvature = before - 2 * top + after
        offset = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
        shift.append((peak[axis] + size // 2) % size - size // 2 + offset)
    return np.array(shift)
