"""An irregular body of a given volume: a turned ellipsoid, its surface roughened by noise."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from pydantic import Field
from scipy.spatial.transform import Rotation

from fmct.data.phantom.head import Triple
from fmct.data.phantom.noise import NoiseField
from fmct.data.phantom.shapes import Array, Indices, transformed
from fmct.experiment.config import Config

CALIBRATION_STEP_MM = 1.0


class Blob(Config):
    """Where the body is and how it looks; its surface is set so that it has exactly the volume."""

    center_mm: Triple = Field(description="in the head's frame")
    volume_ml: float = Field(gt=0)
    aspect: Triple = Field((1.0, 1.0, 1.0), description="relative lengths of its axes")
    turn_deg: Triple = Field((0.0, 0.0, 0.0), description="Euler angles of its axes")
    roughness: float = Field(0.18, ge=0, lt=0.5, description="irregularity of the surface against the radius")
    seed: int = 0

    @property
    def radius_mm(self) -> float:
        """Radius of the ball of the same volume."""
        return float((self.volume_ml * 1000.0 * 3.0 / (4.0 * np.pi)) ** (1.0 / 3.0))

    @cached_property
    def _noise(self) -> NoiseField:
        return NoiseField(self.seed, wavelength_mm=max(1.3 * self.radius_mm, 6.0), nodes=32)

    def _level(self, points_mm: Array) -> Array:
        """Return a function that grows outward, 1 near the surface."""
        offset = points_mm - np.array(self.center_mm, np.float32)[:, None]
        axes = Rotation.from_euler("ZXY", self.turn_deg, degrees=True).as_matrix()
        aspect = np.array(self.aspect) / np.prod(self.aspect) ** (1.0 / 3.0)
        x, y, z = transformed((axes.T / (aspect[:, None] * self.radius_mm)).astype(np.float32), offset)
        level: Array = np.sqrt(x * x + y * y + z * z) + np.float32(self.roughness) * self._noise.at(offset)
        return level

    @cached_property
    def _surface(self) -> float:
        """The level that encloses the volume."""
        reach = self.reach_mm
        axis = np.arange(-reach, reach, CALIBRATION_STEP_MM, dtype=np.float32)
        grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, -1)
        level = self._level(grid + np.array(self.center_mm, np.float32)[:, None])
        inside = round(self.volume_ml * 1000.0 / CALIBRATION_STEP_MM**3)
        return float(np.partition(level, inside)[inside])

    @property
    def reach_mm(self) -> float:
        """No part of the body is farther from the center along any axis."""
        longest = max(self.aspect) / float(np.prod(self.aspect) ** (1.0 / 3.0))
        return self.radius_mm * longest * (1.0 + 3.5 * self.roughness) + 2.0

    def near(self, points_mm: Array, margin_mm: float = 0.0) -> Indices:
        """Return the indices of the points in the body's box, widened by a margin."""
        reach = np.float32(self.reach_mm + margin_mm)
        x, y, z = (np.abs(p - np.float32(c)) < reach for p, c in zip(points_mm, self.center_mm, strict=True))
        return np.flatnonzero(x & y & z)

    def distance(self, points_mm: Array) -> Array:
        """Return the approximate distance to the surface in mm, negative inside, (N,)."""
        return (self._level(points_mm) - np.float32(self._surface)) * np.float32(self.radius_mm)


def draw_blob(rng: np.random.Generator, center_mm: Triple, volume_ml: float) -> Blob:
    """Draw the shape of a body of a given volume and place."""
    aspect = tuple(float(a) for a in np.exp(rng.normal(0.0, 0.16, 3)))
    turn = tuple(float(a) for a in rng.uniform(-90.0, 90.0, 3))
    return Blob(
        center_mm=center_mm,
        volume_ml=volume_ml,
        aspect=(aspect[0], aspect[1], aspect[2]),
        turn_deg=(turn[0], turn[1], turn[2]),
        roughness=float(rng.uniform(0.08, 0.22)),
        seed=int(rng.integers(2**31)),
    )
