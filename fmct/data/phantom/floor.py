"""The floor of the cranial cavity: a surface through landmarks of the average head, with three fossae."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.interpolate import RBFInterpolator

from fmct.data.phantom.noise import interpolate
from fmct.data.phantom.shapes import Array

# Height of the cranial floor: |x|, y -> z.
FLOOR_LANDMARKS_MM = (
    # anterior fossa: crista galli and cribriform plate, orbital roofs, planum sphenoidale
    *(
        (0, 60, -18),
        (0, 45, -27),
        (0, 30, -26),
        (12, 45, -25),
        (30, 45, -15),
        (30, 60, -12),
        (45, 40, -14),
        (0, 75, -5),
    ),
    *((0, 15, -22), (30, 72, -5), (12, 22, -20), (28, 24, -17), (42, 26, -16), (55, 24, -14), (62, 20, -10)),
    # sella, dorsum, clivus
    *((0, 3, -30), (0, -3, -31), (9, 0, -27), (0, -10, -22), (0, -16, -30), (0, -24, -44), (0, -32, -58)),
    # middle fossa
    *(
        (36, 14, -40),
        (34, 4, -42),
        (48, 12, -38),
        (46, -8, -42),
        (58, -6, -36),
        (22, 2, -35),
        (60, -22, -32),
        (30, -8, -38),
    ),
    # petrous ridge
    *((13, -16, -30), (24, -23, -27), (36, -31, -24), (50, -40, -22), (64, -44, -20)),
    # posterior fossa with foramen magnum and internal occipital protuberance
    *((14, -28, -44), (0, -45, -66), (14, -45, -64), (28, -42, -50), (40, -50, -42), (25, -62, -60), (0, -66, -62)),
    *((40, -72, -44), (20, -85, -46), (0, -88, -44), (55, -60, -30), (0, -100, -25), (30, -98, -28), (70, -75, -20)),
)
TABLE_STEP_MM = 2.0
TABLE_X_MM, TABLE_Y_MM = np.arange(0.0, 92.0, TABLE_STEP_MM), np.arange(-124.0, 100.0, TABLE_STEP_MM)
LOWEST_MM, HIGHEST_MM = -70.0, 20.0


@cache
def floor_table() -> tuple[Array, Array]:
    """Return height of the floor and cosine of its slope on (|x|, y) of the table, through the landmarks."""
    landmarks = np.array(FLOOR_LANDMARKS_MM, np.float64)
    left = landmarks[landmarks[:, 0] > 0] * (-1, 1, 1)
    both = np.concatenate([landmarks, left])
    spline = RBFInterpolator(both[:, :2], both[:, 2], kernel="thin_plate_spline", smoothing=2.0)
    grid = np.stack(np.meshgrid(TABLE_X_MM, TABLE_Y_MM, indexing="ij"), axis=-1)
    height = np.clip(spline(grid.reshape(-1, 2)).reshape(grid.shape[:2]), LOWEST_MM, HIGHEST_MM)
    slope_x, slope_y = np.gradient(height, TABLE_STEP_MM)
    return height.astype(np.float32), (1.0 / np.sqrt(1.0 + slope_x**2 + slope_y**2)).astype(np.float32)


def below_floor(template_mm: Array) -> Array:
    """Return how far (3, N) points of the average head lie below the floor, (N,) mm, negative above it."""
    height, cosine = floor_table()
    from_corner = np.stack([np.abs(template_mm[0]), template_mm[1] - TABLE_Y_MM[0]])
    at = (from_corner / TABLE_STEP_MM).astype(np.float32)
    below: Array = (interpolate(height, at) - template_mm[2]) * interpolate(cosine, at)
    return below
