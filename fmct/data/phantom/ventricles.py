"""Ventricles and cisterns of the average brain, as distances in mm (coordinates: see `skull`)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.shapes import Array, capsule, ellipsoid, mirrored, smooth_max, smooth_min

# Center line of the right lateral ventricle with its radius: frontal horn, body, atrium; then the two horns behind.
LATERAL_MM = (
    ((17.0, 32.0, 6.0), 2.6),
    ((11.0, 24.0, 11.0), 4.6),
    ((7.5, 8.0, 16.0), 4.8),
    ((10.0, -12.0, 22.0), 4.6),
    ((16.0, -30.0, 20.0), 5.2),
    ((24.0, -42.0, 12.0), 6.6),
)
OCCIPITAL_HORN_MM = (((23.0, -44.0, 10.0), 5.4), ((21.0, -70.0, 4.0), 1.6))
TEMPORAL_HORN_MM = (((24.0, -42.0, 9.0), 4.6), ((33.0, -30.0, -8.0), 2.6), ((34.0, -8.0, -18.0), 1.6))
SEPTUM_MM = 0.8


@dataclass(frozen=True)
class FluidSpaces:
    """Distances to fluid inside the brain, (N,) mm, negative inside.

    Attributes:
        ventricles: lateral, third and fourth ventricles.
        cisterns: around the midbrain and above the sella.
    """

    ventricles: Array
    cisterns: Array


def tube(points_mm: Array, line: tuple[tuple[tuple[float, float, float], float], ...], scale: float) -> Array:
    """Return the distance to a tube along a center line with changing radius."""
    distance = None
    for (start, radius), (end, end_radius) in itertools.pairwise(line):
        part = capsule(points_mm, start, end, radius * scale, end_radius * scale)
        distance = part if distance is None else smooth_min(distance, part, 2.5)
    assert distance is not None
    return distance


def fluid_spaces(head: HeadParameters, template_mm: Array) -> FluidSpaces:
    """Return the distances to ventricles and cisterns at (3, N) points of the average head."""
    pair = mirrored(template_mm)
    scale = head.ventricle_scale
    lateral = tube(pair, LATERAL_MM, scale)
    lateral = smooth_min(lateral, tube(pair, OCCIPITAL_HORN_MM, scale), 3.0)
    lateral = smooth_min(lateral, tube(pair, TEMPORAL_HORN_MM, head.temporal_horn_scale * (0.4 + 0.6 * scale)), 2.0)
    # Heads of the caudate nuclei and thalami bulge into the lateral ventricles from outside.
    caudate = ellipsoid(pair, (15.5 + 2.0 * scale, 16.0, 10.0), (6.5, 14.0, 9.0))
    lateral = smooth_max(lateral, -caudate, 3.0)
    lateral -= np.sign(template_mm[0]) * np.float32(2.0 * head.ventricle_asymmetry)
    lateral = np.maximum(lateral, np.float32(SEPTUM_MM) - pair[0])
    third = ellipsoid(template_mm, (0.0, -10.0, -1.0), ((1.2 + 1.3 * scale) * head.third_ventricle_scale, 15.0, 12.0))
    fourth = smooth_max(
        ellipsoid(template_mm, (0.0, -47.0, -34.0), (5.0 + 2.0 * scale, 6.0 + scale, 13.0)),
        -ellipsoid(template_mm, (0.0, -62.0, -38.0), (5.0, 14.0, 12.0)),
        3.0,
    )
    ventricles = np.minimum(lateral, np.minimum(third, fourth))
    return FluidSpaces(ventricles, cisterns(head, template_mm, pair))


def cisterns(head: HeadParameters, template_mm: Array, pair: Array) -> Array:
    """Return the distance to the cisterns: suprasellar with limbs to the Sylvian fissures, ambient, quadrigeminal."""
    width = 0.6 + 0.4 * head.gap_mm
    star = ellipsoid(template_mm, (0.0, 1.0, -21.0), (11.0 + width, 9.0, 6.0))
    limb = capsule(pair, (8.0, 4.0, -20.0), (30.0, 8.0, -17.0), 1.2 + 0.5 * width)
    ambient = capsule(pair, (19.0, -20.0, -12.0), (11.0, -38.0, -8.0), 0.8 + 0.6 * width)
    quadrigeminal = ellipsoid(template_mm, (0.0, -41.0, -6.0), (9.0, 2.0 + width, 6.0))
    return smooth_min(smooth_min(star, limb, 3.0), smooth_min(ambient, quadrigeminal, 3.0), 2.0)
