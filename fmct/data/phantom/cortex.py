"""How the cortex folds: sulci are sheets that run inward from the surface, between gyri about 12 mm wide.

A band-limited random field on a sphere is laid on the brain by radial projection; its zero lines become sulci. Dividing
the field by its slope along the sphere turns it into a distance, so that a sulcus has the width in mm that it should.
"""

from __future__ import annotations

import numpy as np

from fmct.data.phantom.details import Details
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.noise import NoiseField, PlaneWaves, interpolate
from fmct.data.phantom.shapes import Array, smooth_step

SPHERE_MM = 60.0  # radius of the sphere that carries the pattern
PATTERN_WAVELENGTH_MM = 21.0
STEP_MM, NODES = 2.5, 60
BASE_MM = (22.0, 44.0)  # from the center: no sulci in detailed heads, all of them
REACH_MM = 27.0  # from the sphere, of what is looked up


class Folding:
    """The sulci of one brain.

    Args:
        head: whose brain.
        details: where they wind, and how much wider or narrower than usual they are; None for plain ones.
    """

    def __init__(self, head: HeadParameters, details: Details | None = None) -> None:
        field = NoiseField(head.seed + 6, PATTERN_WAVELENGTH_MM, NODES, PATTERN_WAVELENGTH_MM / STEP_MM).values
        along = (np.arange(NODES, dtype=np.float32) - (NODES - 1) / 2) * STEP_MM
        position = np.stack(np.meshgrid(along, along, along, indexing="ij"))
        outward = position / np.maximum(np.sqrt((position**2).sum(0)), np.float32(STEP_MM))
        slope = np.stack([np.gradient(field, STEP_MM, axis=axis) for axis in range(3)]).astype(np.float32)
        slope -= (slope * outward).sum(0) * outward
        steepness = np.sqrt((slope**2).sum(0))
        usual = np.sqrt((steepness**2).mean())
        self.distance_mm: Array = (field / np.sqrt(steepness**2 + (0.35 * usual) ** 2)).astype(np.float32)
        if details is not None:
            near = np.flatnonzero(np.abs(np.sqrt((position**2).sum(0)) - SPHERE_MM).ravel() < REACH_MM)
            wound = details.warped(position.reshape(3, -1)[:, near]) / np.float32(STEP_MM) + np.float32((NODES - 1) / 2)
            self.distance_mm.reshape(-1)[near] = interpolate(self.distance_mm.copy(), wound)
        self.slant = np.float32(0.15 if details is None else 0.3)
        self.depth = PlaneWaves(head.seed + 7, wavelength_mm=36.0)
        self.sparing_base = head.detailed

    def sulcus(self, template_mm: Array) -> tuple[Array, Array]:
        """Return the signed distance to the nearest sulcal sheet and how deep that sulcus reaches.

        Args:
            template_mm: (3, N) in the average head's frame.

        Returns:
            (N,) signed distance in mm, and (N,) depth under the brain's surface in mm.
        """
        center = np.array([[0.0], [-17.0], [4.0]], np.float32)
        from_center = template_mm - center
        radius = np.maximum(np.sqrt((from_center**2).sum(0)), np.float32(1.0))
        # A little of the true radius keeps sheets from being exactly radial.
        on_sphere = from_center * (np.float32(SPHERE_MM) / radius * (1.0 + self.slant * (radius / SPHERE_MM - 1.0)))
        at = on_sphere / np.float32(STEP_MM) + np.float32((NODES - 1) / 2)
        distance = interpolate(self.distance_mm, at) * (radius / np.float32(SPHERE_MM))
        depth = np.float32(15.0) + np.float32(5.0) * self.depth.at(on_sphere)
        if self.sparing_base:  # where the surface comes near to the center, sheets would lie closer than gyri are wide
            depth *= smooth_step(radius, *BASE_MM)
        return distance, np.maximum(depth, np.float32(3.0))
