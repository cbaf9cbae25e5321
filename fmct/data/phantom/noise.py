"""Band-limited random fields: seeded, continuous, the same whatever grid samples them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import fft, ndimage

from fmct.data.phantom.shapes import Array, transformed


class NoiseField:
    """Periodic Gaussian noise of one wavelength on a cubic lattice, interpolated linearly.

    Args:
        seed: same seed, same field.
        wavelength_mm: where its spectrum peaks; features are about half as wide.
        nodes: lattice nodes along each axis; the field repeats after `nodes * step_mm`.
        nodes_per_wavelength: lattice density; below 5 the linear interpolation shows.
    """

    def __init__(self, seed: int, wavelength_mm: float, nodes: int = 48, nodes_per_wavelength: float = 6.0) -> None:
        self.step_mm = wavelength_mm / nodes_per_wavelength
        white = np.random.default_rng(seed).standard_normal((nodes,) * 3, dtype=np.float32)
        along = np.abs(fft.fftfreq(nodes)).astype(np.float32)
        half = fft.rfftfreq(nodes).astype(np.float32)
        frequency = np.sqrt(along[:, None, None] ** 2 + along[None, :, None] ** 2 + half[None, None, :] ** 2)
        octaves = np.log2(np.maximum(frequency, 1e-6) * nodes_per_wavelength)
        spectrum = fft.rfftn(white) * np.exp(-0.5 * (octaves / 0.35) ** 2)
        values = fft.irfftn(spectrum, s=white.shape)
        self.values: Array = (values / values.std()).astype(np.float32)

    def at(self, points_mm: Array) -> Array:
        """Return the field, (N,) float32 with mean 0 and standard deviation 1, at (3, N) points."""
        return interpolate(self.values, points_mm * np.float32(1.0 / self.step_mm), mode="grid-wrap")


class PlaneWaves:
    """A smooth random field made of a few cosines: cheaper than a lattice, for what varies slowly.

    Args:
        seed: same seed, same field.
        wavelength_mm: of each wave; their directions and phases are random.
        waves: how many.
    """

    def __init__(self, seed: int, wavelength_mm: float, waves: int = 4) -> None:
        rng = np.random.default_rng(seed)
        directions = rng.standard_normal((waves, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self.vectors: Array = (directions * (2.0 * np.pi / wavelength_mm)).astype(np.float32)
        self.phases: Array = rng.uniform(0.0, 2.0 * np.pi, (waves, 1)).astype(np.float32)

    def at(self, points_mm: Array) -> Array:
        """Return the field, (N,) float32 with mean 0 and standard deviation 1, at (3, N) points."""
        waves = np.cos(transformed(self.vectors, points_mm) + self.phases)
        field: Array = waves.sum(0) * np.float32(np.sqrt(2.0 / len(waves)))
        return field


def interpolate(lattice: Array, indices: Array, mode: Literal["nearest", "grid-wrap"] = "nearest") -> Array:
    """Return a lattice of any dimension D interpolated linearly at (D, N) fractional indices."""
    out = np.empty(indices.shape[1], np.float32)
    ndimage.map_coordinates(lattice, indices, output=out, order=1, mode=mode, prefilter=False)
    return out
