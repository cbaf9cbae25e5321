"""A scan of a rendered head: true slice positions, averaging over slice and pixel, noise, clipping.

Legend: K slices, R rows, C columns. A slice is a linear function of the rendered voxels, and all planes contain the
direction of x: so rows are gathered by one sparse matrix from (z, y) and columns by another from x, whatever the tilt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse, stats

from fmct.data.geometry import LPS_TO_RAS
from fmct.data.phantom.artifacts import SLAB_MM, Artifacts
from fmct.data.phantom.coverage import shortened
from fmct.data.phantom.detector_noise import noise, ramp_noise
from fmct.data.phantom.findings import Finding
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.render import Band, Grid, Rendering, render
from fmct.data.phantom.scanner import NO_OVERRIDES, Overrides, Protocol, Scanner
from fmct.data.phantom.shapes import Array
from fmct.data.phantom.skull import AIR_HU

FINEST_MM, COARSEST_MM = 1.0, 2.5  # steps of the rendering under a scan
SLICES_AT_ONCE = 8
LOWEST_HU, HIGHEST_HU = -1024, 3071
ENHANCED_MM = 0.8  # radius that an edge-enhancing kernel overshoots over

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Scan:
    """What a scanner delivers.

    Attributes:
        scanner: by which scanner, with the kernel in use.
        protocol: how it was done; it may have fewer slices than was asked for, where coverage is missed.
        hu: (K, R, C) int16 in order of acquisition; the scanner's padding value where nothing was measured.
        lesions: each finding's share of every voxel, (K, R, C) float32; only where they were asked for.
        rendering: the head that was scanned; only with the lesions.
    """

    scanner: Scanner
    protocol: Protocol
    hu: NDArray[np.int16]
    lesions: dict[str, Array] = field(default_factory=dict)
    rendering: Rendering | None = None

    @property
    def row_cosine(self) -> Vector:
        """(3,) LPS direction from one column to the next."""
        return np.array([1.0, 0.0, 0.0])

    @property
    def column_cosine(self) -> Vector:
        """(3,) LPS direction from one row to the next, in the plane of the tilted gantry."""
        tilt = np.deg2rad(self.protocol.tilt_deg)
        return np.array([0.0, np.cos(tilt), 0.0 - np.sin(tilt)])

    @property
    def origins_mm(self) -> Vector:
        """(K, 3) LPS centers of the first pixel of each slice; they differ in z alone."""
        protocol = self.protocol
        z = np.array(protocol.table_z_mm)
        centers = np.stack([np.full(z.size, protocol.center_mm[0]), np.full(z.size, protocol.center_mm[1]), z], axis=1)
        half = (protocol.matrix - 1) / 2 * protocol.pixel_mm
        origins: Vector = centers - half * (self.row_cosine + self.column_cosine)
        return origins


def scan(
    head: HeadParameters,
    scanner: Scanner,
    rng: np.random.Generator,
    findings: Sequence[Finding] = (),
    overrides: Overrides = NO_OVERRIDES,
    even: bool = False,
    lesions: bool = False,
) -> Scan:
    """Draw a protocol and acquire a head with it; the arguments are those of `Scanner.draw` and `acquire`."""
    return acquire(head, scanner, scanner.draw(rng, head, overrides, even), rng, findings, lesions)


def acquire(
    head: HeadParameters,
    scanner: Scanner,
    protocol: Protocol,
    rng: np.random.Generator,
    findings: Sequence[Finding] = (),
    lesions: bool = False,
) -> Scan:
    """Scan a head.

    Args:
        head: whose head, and how it lies.
        scanner: its kernel and noise.
        protocol: where the slices are.
        rng: for the noise.
        findings: what is wrong with the head.
        lesions: whether to deliver the findings' masks too.
    """
    effects = protocol.effects
    scanner = scanner.as_used(protocol)
    voxel_mm = np.cbrt(protocol.pixel_mm**2 * min(protocol.slice_mm))
    step = float(np.clip(voxel_mm, FINEST_MM, COARSEST_MM))
    if effects is not None:
        head = head.model_copy(update={"detailed": True})
    rest = "cup" if effects is None else effects.rest
    band = band_under(protocol, step) if protocol.tilt_deg else None
    rendering = render(head, grid_under(head, protocol, step), findings, rest=rest, band=band)
    protocol = shortened(protocol, head, rendering)
    gather = Sampler(rendering.grid, protocol, scanner.blur_mm)
    count, matrix = len(protocol.slice_mm), protocol.matrix
    hu = np.empty((count, matrix, matrix), np.int16)
    masks = {name: np.empty(hu.shape, np.float32) for name in (rendering.lesions if lesions else ())}
    outside = outside_circle(matrix)
    above_air = rendering.hu - np.float32(AIR_HU)  # beyond the rendering there is air

    def slices(other: Protocol) -> Array:
        everything = slice(0, len(other.slice_mm))
        return Sampler(rendering.grid, other, scanner.blur_mm)(above_air, everything) + np.float32(AIR_HU)

    artifacts = None if effects is None else Artifacts(head, protocol, effects, slices)
    for start in range(0, count, SLICES_AT_ONCE):
        some = slice(start, min(start + SLICES_AT_ONCE, count))
        measured = gather(above_air, some) + np.float32(AIR_HU)
        if artifacts is not None:
            artifacts.add(measured, start)
        enhance(measured, scanner, protocol)
        for k, plane in enumerate(measured, start):
            if artifacts is None:
                plane += noise(scanner, protocol, protocol.slice_mm[k], rng)
            else:
                plane += ramp_noise(scanner, protocol, protocol.slice_mm[k], rng) * artifacts.noise_map(k)
        hu[some] = np.clip(np.rint(measured), LOWEST_HU, HIGHEST_HU)
        for name, mask in masks.items():
            mask[some] = gather(rendering.lesions[name], some)
    if scanner.padding_hu is not None:
        hu[:, outside] = scanner.padding_hu
    return Scan(scanner, protocol, hu, masks, rendering if lesions else None)


def enhance(planes: Array, scanner: Scanner, protocol: Protocol) -> None:
    """Overshoot at the edges of slices, (k, R, C) in place, as the kernel does, where pixels are fine enough for it."""
    sigma = ENHANCED_MM / protocol.pixel_mm
    if protocol.effects is None or not scanner.enhancement or sigma < 0.3:
        return
    smooth = ndimage.gaussian_filter(planes, (0.0, sigma, sigma), truncate=3.0)
    planes += np.float32(scanner.enhancement) * (planes - smooth)


def grid_under(head: HeadParameters, protocol: Protocol, step_mm: float) -> Grid:
    """Return the grid to render in (RAS) so that all slices find their voxels, as far as head and couch reach."""
    half = protocol.matrix * protocol.pixel_mm / 2
    x, y = -protocol.center_mm[0], -protocol.center_mm[1]
    reach = half * abs(np.sin(np.deg2rad(protocol.tilt_deg))) + max(protocol.slice_mm)
    z = head.pose.shift_mm[2]
    low = max(min(protocol.table_z_mm) - reach, z - 150.0)
    high = min(max(protocol.table_z_mm) + reach, z + 130.0)
    return Grid.spanning((x - half, y - half, low), (x + half, y + half, high), step_mm)


def band_under(protocol: Protocol, step_mm: float) -> Band:
    """Return what the slices see, with the voxels next to it."""
    tilt = np.deg2rad(protocol.tilt_deg)
    through = max(*protocol.slice_mm, SLAB_MM) / 2 / np.cos(tilt)
    margin = through + step_mm * (1.0 + abs(np.tan(tilt)))
    center = float(np.tan(tilt) * protocol.center_mm[1])
    low, high = min(protocol.table_z_mm) - margin, max(protocol.table_z_mm) + margin
    return Band(float(LPS_TO_RAS[1] * np.tan(tilt)), center + low, center + high)


class Sampler:
    """Averages of rendered voxels over the pixels and slices of a protocol."""

    def __init__(self, grid: Grid, protocol: Protocol, blur_mm: float) -> None:
        self.grid, self.protocol = grid, protocol
        spread = float(np.hypot(blur_mm, protocol.pixel_mm / np.sqrt(12.0)))
        count = max(2, int(np.ceil(4.0 * spread / grid.step_mm)))
        self.in_plane_mm = stats.norm.ppf((np.arange(count) + 0.5) / count) * spread
        half = (protocol.matrix - 1) / 2
        self.offsets_mm = (np.arange(protocol.matrix) - half) * protocol.pixel_mm
        x_ras = LPS_TO_RAS[0] * (protocol.center_mm[0] + self.offsets_mm[:, None] + self.in_plane_mm)
        index, weight = linear_weights(x_ras, grid.origin_mm[0], grid.step_mm, grid.shape_zyx[2])
        columns = np.repeat(np.arange(protocol.matrix), weight[0].size)
        shape = (protocol.matrix, grid.shape_zyx[2])
        matrix = sparse.coo_array((weight.ravel() / count, (columns, index.ravel())), shape=shape)
        self.from_x = matrix.tocsr().astype(np.float32)

    def __call__(self, volume: Array, slices: slice) -> Array:
        """Return some slices of a rendered (Z, Y, X) volume, (k, R, C) float32."""
        matrix = self.protocol.matrix
        planes = self._rows(slices) @ volume.reshape(-1, volume.shape[-1])
        sampled: Array = (self.from_x @ np.ascontiguousarray(planes.T)).T
        return np.ascontiguousarray(sampled).reshape(-1, matrix, matrix)

    def _rows(self, slices: slice) -> sparse.csr_array:
        """Return the matrix that makes the rows of some slices from the rows (z, y) of the rendering."""
        protocol, (nz, ny, _) = self.protocol, self.grid.shape_zyx
        tilt = np.deg2rad(protocol.tilt_deg)
        thickness = np.array(protocol.slice_mm[slices])
        count = max(1, int(np.ceil(thickness.max() / self.grid.step_mm)))
        through = ((np.arange(count) + 0.5) / count - 0.5) * thickness[:, None]  # (k, count)
        along = self.offsets_mm[:, None] + self.in_plane_mm  # (R, in plane)
        along, through = along[None, :, :, None], through[:, None, None, :]
        y_ras = LPS_TO_RAS[1] * (protocol.center_mm[1] + np.cos(tilt) * along + np.sin(tilt) * through)
        z = np.array(protocol.table_z_mm[slices])[:, None, None, None] - np.sin(tilt) * along + np.cos(tilt) * through
        y_index, y_weight = linear_weights(y_ras, self.grid.origin_mm[1], self.grid.step_mm, ny)
        z_index, z_weight = linear_weights(z, self.grid.origin_mm[2], self.grid.step_mm, nz)
        index = z_index[..., :, None] * ny + y_index[..., None, :]
        weight = z_weight[..., :, None] * y_weight[..., None, :]
        rows = np.arange(thickness.size * protocol.matrix)
        per_row = weight[0, 0].size
        weight = weight.reshape(-1) * (4.0 / per_row)
        entries = (weight.astype(np.float32), (np.repeat(rows, per_row), index.reshape(-1)))
        return sparse.coo_array(entries, shape=(rows.size, nz * ny)).tocsr()


def linear_weights(at_mm: Vector, origin_mm: float, step_mm: float, count: int) -> tuple[NDArray[np.intp], Vector]:
    """Return the two neighbors on an axis of each place, and their weights, 0 for those beyond the axis.

    Returns:
        Indices within the axis and weights, both of the shape of `at_mm` with 2 appended.
    """
    position = (at_mm - origin_mm) / step_mm
    lower = np.floor(position)
    share = position - lower
    index = np.stack([lower, lower + 1], axis=-1).astype(np.intp)
    weight = np.stack([1.0 - share, share], axis=-1) * ((index >= 0) & (index < count))
    return np.clip(index, 0, count - 1), weight


def outside_circle(matrix: int) -> NDArray[np.bool_]:
    """Return which pixels lie outside the circular field of view, (R, C)."""
    along = np.arange(matrix) - (matrix - 1) / 2
    outside: NDArray[np.bool_] = along[:, None] ** 2 + along[None, :] ** 2 > (matrix / 2) ** 2
    return outside
