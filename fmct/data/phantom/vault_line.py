"""A jagged line over the vault, as fractures and the grooves of vessels run: how far from it a point of the bone is.

Legend: N points. Directions are seen from the vault's center, as in `vault`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.shapes import Array, Indices, smooth_step
from fmct.data.phantom.skull import VAULT_CENTER_MM
from fmct.data.phantom.vault import outward
from fmct.experiment.config import Config

TAPER_DEG = 5.0  # over which the line ends
WAVES_MM = ((23.0, 1.0), (9.0, 0.45), (4.0, 0.2))  # wavelength along the line, and its share of the jaggedness
BASE_MM = (-24.0, -12.0)  # heights of the average head between which a line fades: below, bone isn't the vault's
RADIUS_MM = 75.0  # usual distance of the bone from the vault's center


class VaultLine(Config):
    """Where the line's middle is, where it runs from there, how far, and how crooked."""

    side: Literal[-1, 1] = Field(description="1 right, -1 left")
    azimuth_deg: float
    elevation_deg: float
    heading_deg: float = Field(0.0, description="0 level toward the forehead, 90 upward")
    half_length_deg: float = Field(25.0, gt=0, le=60)
    jaggedness_mm: float = Field(1.2, ge=0)
    seed: int = 0

    def axes(self) -> tuple[Array, Array, Array]:
        """Return three perpendicular directions, (3,) each: outward at the middle, along and across the line."""
        middle = outward(self.azimuth_deg, self.elevation_deg)
        azimuth, heading = np.deg2rad([self.azimuth_deg, self.heading_deg])
        forward = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        upward = np.cross(middle, forward)
        along = np.cos(heading) * forward + np.sin(heading) * upward
        across = np.cross(middle, along)
        mirror = np.array([self.side, 1.0, 1.0])
        first, second, third = ((axis * mirror).astype(np.float32) for axis in (middle, along, across))
        return first, second, third

    def near(self, head: HeadParameters, points_mm: Array, reach_deg: float) -> Indices:
        """Return the indices of the points that are less than `reach_deg` from the line's middle."""
        x, y, z = self._from_center(head, points_mm)
        outward, _, _ = self.axes()
        toward = x * outward[0] + y * outward[1] + z * outward[2]
        return np.flatnonzero(toward > np.float32(np.cos(np.deg2rad(reach_deg))) * np.sqrt(x * x + y * y + z * z))

    def at(self, head: HeadParameters, points_mm: Array) -> tuple[Array, Array, Array]:
        """Return where points are against the line.

        Args:
            head: whose vault.
            points_mm: (3, N) in the head's frame.

        Returns:
            (N,) signed distance across the line in mm; (N,) how much of the line is there, 1 along most of it and 0
            beyond its ends; (N,) angle from its middle in degrees.
        """
        x, y, z = self._from_center(head, points_mm)
        radius = np.maximum(np.sqrt(x * x + y * y + z * z), np.float32(1.0))
        toward, along, across = (x * a[0] + y * a[1] + z * a[2] for a in self.axes())
        angle = np.degrees(np.arctan2(along, toward))
        phases = np.random.default_rng(self.seed).uniform(0.0, 2.0 * np.pi, len(WAVES_MM))
        place = np.deg2rad(angle) * np.float32(RADIUS_MM)
        crooked = np.zeros_like(place)
        for (wavelength, share), phase in zip(WAVES_MM, phases, strict=True):
            crooked += np.float32(share) * np.sin(place * np.float32(2.0 * np.pi / wavelength) + np.float32(phase))
        there = smooth_step(np.float32(self.half_length_deg) - np.abs(angle), 0.0, TAPER_DEG)
        there *= smooth_step(points_mm[2] / np.float32(head.scale[2]), *BASE_MM)
        from_middle = np.degrees(np.arccos(np.clip(toward / radius, -1.0, 1.0)))
        return across - np.float32(self.jaggedness_mm) * crooked, there, from_middle

    @staticmethod
    def _from_center(head: HeadParameters, points_mm: Array) -> Array:
        """Return points against the vault's center, (3, N)."""
        center = np.array(VAULT_CENTER_MM, np.float32) * np.array(head.scale, np.float32)
        from_center: Array = points_mm - center[:, None]
        return from_center
