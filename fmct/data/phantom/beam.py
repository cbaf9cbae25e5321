"""A polychromatic parallel beam through slices on a coarse grid: what bone does to rays and to the pictures of them.

Legend: K slices, N pixels along each edge of a slice, A angles, N rays of each. Slices are (N * N, K), their
projections (A * N, K); attenuation is relative to water's (1 in water, 0 in air), so that projections are mm of water.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, sparse

from fmct.data.phantom.shapes import Array

# Mass attenuation in cm2/g, NIST (Hubbell & Seltzer 1995, NISTIR 5632): water, cortical bone (ICRU 44), aluminum, iron.
TABLE_KEV = (30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
WATER_CM2_G = (0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505)
BONE_CM2_G = (1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480)
ALUMINUM_CM2_G = (1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704, 0.1378)
IRON_CM2_G = (8.176, 3.629, 1.958, 1.205, 0.5952, 0.3717, 0.1964)
BONE_G_CM3, ALUMINUM_G_CM3, IRON_G_CM3 = 1.92, 2.70, 7.87
FILTER_CM = 0.9  # aluminum: inherent filtration and the middle of the bow tie
MONO_KEV = 70.0  # at which HU are what the phantom says
BINS_KEV = 10.0
STARVED = 7.0  # attenuation (natural logarithm) beyond which a detector measures its own noise
LONGEST_MM = 600.0  # of water, in the table that corrects for it

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """What a tube sends through the bow-tie filter.

    Attributes:
        weights: (E,) share of the signal at each energy, in air.
        water_per_mm, bone_per_mm, metal_per_mm: (E,) attenuation.
    """

    weights: Vector
    water_per_mm: Vector
    bone_per_mm: Vector
    metal_per_mm: Vector

    @classmethod
    def of(cls, kvp: int) -> Spectrum:
        """Return the spectrum of a tungsten anode by Kramers' law, filtered, as a detector of energy weighs it."""
        kev = np.arange(35.0, kvp, BINS_KEV)
        through_filter = np.exp(-attenuation(kev, ALUMINUM_CM2_G) * ALUMINUM_G_CM3 * FILTER_CM)
        weights = (kvp / kev - 1.0) * kev * through_filter
        bone, metal = (
            attenuation(kev, BONE_CM2_G) * BONE_G_CM3 / 10.0,
            attenuation(kev, IRON_CM2_G) * IRON_G_CM3 / 10.0,
        )
        return cls(weights / weights.sum(), attenuation(kev, WATER_CM2_G) / 10.0, bone, metal)

    def measured(self, water_mm: Array, bone_mm: Array, metal_mm: Array | None = None) -> Array:
        """Return the logarithm of the attenuation along rays, of any one shape, never more than a detector can see."""
        signal = np.zeros_like(water_mm)
        for weight, water, bone, metal in zip(
            self.weights, self.water_per_mm, self.bone_per_mm, self.metal_per_mm, strict=True
        ):
            exponent = water_mm * np.float32(-water) - bone_mm * np.float32(bone)
            if metal_mm is not None:
                exponent -= metal_mm * np.float32(metal)
            signal += np.float32(weight) * np.exp(exponent)
        measured: Array = -np.log(np.maximum(signal, np.float32(np.exp(-STARVED))))
        return measured

    def as_water(self, measured: Array) -> Array:
        """Return mm of water that attenuate as much: the correction that every scanner is calibrated for."""
        lengths = np.linspace(0.0, LONGEST_MM, 601, dtype=np.float32)
        table = self.measured(lengths, np.zeros_like(lengths))
        # Rays that starve the detector are read where the table still rises.
        last = int(np.argmax(table >= table[-1]))
        water: Array = np.interp(measured, table[: last + 1], lengths[: last + 1]).astype(np.float32)
        return water


def attenuation(kev: Vector, table_cm2_g: tuple[float, ...]) -> Vector:
    """Return mass attenuation at some energies, by straight lines between logarithms."""
    return np.exp(np.interp(np.log(kev), np.log(TABLE_KEV), np.log(table_cm2_g)))


BONE_TO_WATER = float(
    attenuation(np.array([MONO_KEV]), BONE_CM2_G)[0] * BONE_G_CM3 / attenuation(np.array([MONO_KEV]), WATER_CM2_G)[0]
)
LEAST_BONE_HU = 130.0


def bone_share(hu: Array) -> Array:
    """Return how much of each voxel is cortical bone, 0 to 1, for HU of any shape."""
    share: Array = np.clip(hu * np.float32(0.001 / (BONE_TO_WATER - 1.0)), 0.0, 1.0)
    share[hu < LEAST_BONE_HU] = 0.0
    return share


@dataclass(frozen=True)
class Beam:
    """Parallel rays from angles over half a turn through slices of `count` x `count` pixels of `pixel_mm`."""

    count: int
    angles: int
    pixel_mm: float

    def project(self, slices: Array) -> Array:
        """Return the integrals in mm along the rays, (A * N, K), of (N * N, K) slices."""
        projections: Array = weights(self.count, self.angles) @ slices
        projections *= np.float32(self.pixel_mm)
        return projections

    def smeared(self, projections: Array) -> Array:
        """Return the mean over all angles of the rays through each pixel, (N * N, K)."""
        mean: Array = weights(self.count, self.angles).T @ projections
        mean *= np.float32(1.0 / self.angles)
        return mean

    def reconstruct(self, projections: Array) -> Array:
        """Return the slices by filtered back projection (Ramachandran & Lakshminarayanan 1971, with a Hann window)."""
        rays = projections.reshape(self.angles, self.count, -1)
        size = fft.next_fast_len(2 * self.count, real=True)
        kernel = np.zeros(size, np.float32)
        odd = np.arange(1, size // 2, 2)
        kernel[0] = 0.25
        kernel[odd] = kernel[-odd] = -1.0 / (np.pi * odd) ** 2
        ramp = fft.rfft(kernel).real * (0.5 + 0.5 * np.cos(2.0 * np.pi * fft.rfftfreq(size))) / self.pixel_mm
        filtered = fft.irfft(fft.rfft(rays, size, axis=1) * ramp.astype(np.float32)[:, None], size, axis=1)
        filtered = np.ascontiguousarray(filtered[:, : self.count], dtype=np.float32)
        return self.smeared(filtered.reshape(projections.shape)) * np.float32(np.pi)


@cache
def weights(count: int, angles: int) -> sparse.csr_array:
    """Return how pixels fall on rays, (A * N, N * N): linear shares for the two nearest rays of each angle."""
    along = np.arange(count) - (count - 1) / 2
    rows, columns = np.meshgrid(along, along, indexing="ij")
    angle = np.arange(angles)[:, None] * (np.pi / angles)
    ray = np.cos(angle) * columns.ravel() + np.sin(angle) * rows.ravel() + (count - 1) / 2  # (A, N * N)
    lower = np.floor(ray)
    index = np.stack([lower, lower + 1.0])
    share = np.stack([lower + 1.0 - ray, ray - lower])
    valid = (index >= 0) & (index < count)
    index += np.arange(angles)[:, None] * count
    pixel = np.broadcast_to(np.arange(count * count), index.shape)
    entries = (share[valid].astype(np.float32), (index[valid].astype(np.int32), pixel[valid].astype(np.int32)))
    return sparse.coo_array(entries, shape=(angles * count, count * count)).tocsr()
