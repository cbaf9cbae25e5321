"""What the beam makes of a head: hardening by bone, streaks of metal and motion, noise where few photons come through.

Everything is computed from projections of coarse slices of the rendered head, as the scanner would (see `beam`), and
interpolated to the scan. Legend: K slices of the scan, R rows, C columns; N pixels along the edge of a coarse slice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from scipy import ndimage, sparse

from fmct.data.phantom.beam import BONE_TO_WATER, Beam, Spectrum, Vector, bone_share
from fmct.data.phantom.effects import Effects, Motion
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.metal import metal_ball
from fmct.data.phantom.scanner import Protocol
from fmct.data.phantom.shapes import Array

SLAB_MM = 4.5  # distance of the coarse slices that hardening and noise are computed in
COARSE, COARSE_ANGLES = 64, 72
FINE, FINE_ANGLES = 128, 150  # for streaks
LOWEST_HU, HIGHEST_HU = -1000.0, 3071.0
WATER_PER_MM = 0.0193  # at 70 keV
BRAIN_HU = (5.0, 60.0)
EDGE_PIXELS = 0.7  # over which edges are smoothed, so that the grid doesn't show in streaks
FARTHEST_NOISE = 3.0  # against the usual

Slices = Callable[[Protocol], Array]
"""Samples the rendered head: a protocol's slices as (K, R, C) HU."""


class Artifacts:
    """The disturbances of one scan, to be added slice by slice.

    Args:
        head: for where metal and motion are.
        protocol: of the scan.
        effects: what disturbs it.
        slices: samples the head.
    """

    def __init__(self, head: HeadParameters, protocol: Protocol, effects: Effects, slices: Slices) -> None:
        self.protocol, self.effects = protocol, effects
        self.spectrum = Spectrum.of(protocol.kvp)
        self.table_z = np.array(protocol.table_z_mm)
        low, high = self.table_z.min(), self.table_z.max()
        count = max(2, round((high - low) / SLAB_MM) + 1)
        self.slab_z = np.linspace(low, high, count)
        spacing = (high - low) / (count - 1) * np.cos(np.deg2rad(protocol.tilt_deg))
        coarse = slices(resampled(protocol, COARSE, self.slab_z, spacing))
        beam = Beam(COARSE, COARSE_ANGLES, protocol.pixel_mm * protocol.matrix / COARSE)
        self.from_coarse = spread(COARSE, protocol.matrix)
        self.hardening, self.relative_noise = self._through_bone(beam, coarse)
        self.streaks = self._streaks(head, slices)
        self.metal = metal_ball(head, protocol, effects)

    def add(self, measured: Array, first: int) -> None:
        """Add the artifacts to consecutive slices, (k, R, C) HU, from number `first` on, in place."""
        for k, plane in enumerate(measured, first):
            plane += self._spread(self._between(self.hardening, k))
            if k in self.streaks:
                fine = spread(FINE, self.protocol.matrix)
                plane += (fine @ self.streaks[k] @ fine.T).astype(np.float32)
            if k in self.metal:
                share = self.metal[k]
                plane += share * (np.float32(HIGHEST_HU) - plane)

    def noise_map(self, k: int) -> Array:
        """Return how much stronger noise is than usual in slice `k`, (R, C), around 1 in a head."""
        return self._spread(self._between(self.relative_noise, k)) * np.float32(self.effects.dose)

    def _spread(self, coarse: Array) -> Array:
        plane: Array = self.from_coarse @ coarse @ self.from_coarse.T
        return plane.astype(np.float32, copy=False)

    def _between(self, slabs: Array, k: int) -> Array:
        """Return what lies at slice `k`, (N, N), between two of the (K', N, N) slabs."""
        at = float(np.interp(self.table_z[k], self.slab_z, np.arange(self.slab_z.size)))
        lower = min(int(at), self.slab_z.size - 2)
        share = np.float32(at - lower)
        between: Array = slabs[lower] * (np.float32(1.0) - share) + slabs[lower + 1] * share
        return between

    def _through_bone(self, beam: Beam, coarse: Array) -> tuple[Array, Array]:
        """Return the error by hardening in HU and the relative noise, both (K', N, N)."""
        columns = np.ascontiguousarray(np.clip(coarse, LOWEST_HU, HIGHEST_HU).reshape(len(coarse), -1).T)
        error, total = hardening_error(beam, self.spectrum, columns)
        hardened = beam.reconstruct(error) * np.float32(1000.0 * self.effects.hardening)
        variance = beam.smeared(np.exp(total * np.float32(WATER_PER_MM)))
        brain = (columns > BRAIN_HU[0]) & (columns < BRAIN_HU[1])
        if brain.any():
            hardened -= np.float32(np.median(hardened[brain]))  # calibrated, so that brain is what it should be
            variance /= np.float32(np.median(variance[brain]))
        noise = np.minimum(np.sqrt(variance), np.float32(FARTHEST_NOISE))
        shape = (len(coarse), COARSE, COARSE)
        return (
            np.ascontiguousarray(hardened.T).reshape(shape),
            np.ascontiguousarray(noise.T).reshape(shape),
        )

    def _streaks(self, head: HeadParameters, slices: Slices) -> dict[int, Array]:
        """Return the streaks, (N, N) HU, of the slices that have any."""
        moved = moving_slices(head, self.protocol, self.effects.motion)
        metallic = metal_ball(head, resampled(self.protocol, FINE), self.effects)
        chosen = sorted({*moved, *metallic})
        if not chosen:
            return {}
        beam = Beam(FINE, FINE_ANGLES, self.protocol.pixel_mm * self.protocol.matrix / FINE)
        some = resampled(self.protocol, FINE, self.table_z[chosen], np.array(self.protocol.slice_mm)[chosen])
        planes = np.clip(slices(some), LOWEST_HU, HIGHEST_HU)
        streaks: dict[int, Array] = {}
        for k, plane in zip(chosen, planes, strict=True):
            error = np.zeros((FINE_ANGLES * FINE, 1), np.float32)
            if k in moved and self.effects.motion is not None:
                error += motion_error(beam, plane, self.effects.motion)
            if k in metallic:
                error += metal_error(beam, self.spectrum, plane, metallic[k])
            streaks[k] = beam.reconstruct(error).reshape(FINE, FINE) * np.float32(1000.0)
        return streaks


def hardening_error(beam: Beam, spectrum: Spectrum, columns: Array) -> tuple[Array, Array]:
    """Return by how much projections corrected for water are wrong, and what they should be, both (A * N, K) mm.

    The part that grows in proportion with the bone along a ray is left out: it would only make bone darker as a whole,
    and scanners are calibrated for it. What remains bends: streaks between dense bones, and cupping.

    Args:
        beam: the rays.
        spectrum: their energies.
        columns: (N * N, K) HU.
    """
    bone_mm = beam.project(bone_share(columns))
    total_mm = beam.project(relative(columns))
    water_mm = total_mm - bone_mm * np.float32(BONE_TO_WATER)
    error = spectrum.as_water(spectrum.measured(water_mm, bone_mm)) - total_mm
    squares = float(np.vdot(bone_mm, bone_mm))
    if squares > 0.0:
        error -= bone_mm * np.float32(np.vdot(error, bone_mm) / squares)
    return error, total_mm


def metal_error(beam: Beam, spectrum: Spectrum, plane: Array, metal: Array) -> Array:
    """Return what metal adds to the projections as measured, (A * N, 1) mm: itself, too faint, and its streaks.

    Args:
        beam: the rays.
        spectrum: their energies.
        plane: (N, N) HU without the metal.
        metal: (N, N) its share of each pixel.
    """
    column = plane.reshape(-1, 1)
    metal_mm = beam.project(metal.reshape(-1, 1))
    bone_mm = beam.project(bone_share(column))
    water_mm = beam.project(relative(column)) - bone_mm * np.float32(BONE_TO_WATER)
    with_metal = spectrum.as_water(spectrum.measured(water_mm, bone_mm, metal_mm))
    without = spectrum.as_water(spectrum.measured(water_mm, bone_mm))
    return with_metal - without


def motion_error(beam: Beam, plane: Array, motion: Motion) -> Array:
    """Return the error of the projections, (A * N, 1) mm, when the head moves between one angle and the next."""
    turn = np.deg2rad(motion.turn_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    # Rows run backward and columns to the left (LPS).
    shift = -np.array([motion.shift_mm[1], motion.shift_mm[0]]) / beam.pixel_mm
    middle = np.full(2, (beam.count - 1) / 2)
    offset = middle - rotation @ (middle + shift)
    moved = ndimage.affine_transform(plane, rotation, offset, order=1, cval=LOWEST_HU, prefilter=False)
    change = ndimage.gaussian_filter(moved - plane, EDGE_PIXELS)
    error = beam.project(relative(change, 0.0).reshape(-1, 1))
    error[: round(motion.when * beam.angles) * beam.count] = 0.0
    return error


def relative(hu: Array, air: float = 1.0) -> Array:
    """Return attenuation against water's; `air` is 0 for differences of HU."""
    return hu * np.float32(0.001) + np.float32(air)


def resampled(protocol: Protocol, count: int, z_mm: Vector | None = None, slice_mm: Vector | float = 0.0) -> Protocol:
    """Return a protocol of `count` x `count` pixels over the same field, of other slices where they are given."""
    changed: dict[str, object] = {"matrix": count, "pixel_mm": protocol.pixel_mm * protocol.matrix / count}
    if z_mm is not None:
        thickness = np.broadcast_to(slice_mm, z_mm.shape)
        changed |= {"table_z_mm": tuple(map(float, z_mm)), "slice_mm": tuple(map(float, thickness))}
    return protocol.model_copy(update=changed)


@cache
def spread(count: int, matrix: int) -> sparse.csr_array:
    """Return the (matrix, count) weights that interpolate coarse pixels linearly."""
    at = np.clip((np.arange(matrix) + 0.5) * count / matrix - 0.5, 0.0, count - 1.0)
    lower = np.minimum(at.astype(np.int32), count - 2)
    share = (at - lower).astype(np.float32)
    rows = np.arange(matrix, dtype=np.int32)
    entries = (np.concatenate([1.0 - share, share]), (np.tile(rows, 2), np.concatenate([lower, lower + 1])))
    return sparse.coo_array(entries, shape=(matrix, count)).tocsr()


def moving_slices(head: HeadParameters, protocol: Protocol, motion: Motion | None) -> set[int]:
    """Return the numbers of the slices made while the head moves."""
    if motion is None:
        return set()
    away = np.abs(np.array(protocol.table_z_mm) - head.pose.shift_mm[2] - motion.above_mm)
    return set(map(int, np.flatnonzero(away < motion.length_mm / 2)))
