"""A ball of metal in the slices of a scan: where it lies, and its share of each pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fmct.data.geometry import LPS_TO_RAS
from fmct.data.phantom.effects import Effects
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.scanner import Protocol
from fmct.data.phantom.shapes import Array

SUPERSAMPLED = 5  # points along the edge of a pixel, for metal smaller than that

Vector = NDArray[np.float64]


def metal_ball(head: HeadParameters, protocol: Protocol, effects: Effects) -> dict[int, Array]:
    """Return the share of metal in each pixel, (R, C), of the slices that have any."""
    metal = effects.metal
    if metal is None:
        return {}
    at = head.pose.to_patient(np.array(metal.center_mm, np.float32)[:, None] * np.array(head.scale)[:, None])[:, 0]
    tilt = np.deg2rad(protocol.tilt_deg)
    x = LPS_TO_RAS[0] * at[0] - protocol.center_mm[0]
    y, z = LPS_TO_RAS[1] * at[1] - protocol.center_mm[1], at[2] - np.array(protocol.table_z_mm)
    down, through = y * np.cos(tilt) - z * np.sin(tilt), y * np.sin(tilt) + z * np.cos(tilt)
    matrix, pixel = protocol.matrix, protocol.pixel_mm
    shares: dict[int, Array] = {}
    for k in np.flatnonzero(np.abs(through) < metal.radius_mm + np.array(protocol.slice_mm) / 2):
        rows, columns = (around(middle, metal.radius_mm, pixel, matrix) for middle in (down[k], x))
        apart = (squares(pixels, middle, pixel, matrix) for pixels, middle in ((rows, down[k]), (columns, x)))
        from_rows, from_columns = apart
        chord = np.sqrt(np.maximum(metal.radius_mm**2 - from_rows[:, None] - from_columns, 0.0))
        half = protocol.slice_mm[k] / 2
        overlap = np.maximum(np.minimum(through[k] + chord, half) - np.maximum(through[k] - chord, -half), 0.0)
        overlap = overlap.reshape(rows.size, SUPERSAMPLED, columns.size, SUPERSAMPLED).mean((1, 3))
        shares[int(k)] = np.zeros((matrix, matrix), np.float32)
        shares[int(k)][np.ix_(rows, columns)] = overlap / protocol.slice_mm[k]
    return shares


def around(middle_mm: float, radius_mm: float, pixel_mm: float, matrix: int) -> NDArray[np.intp]:
    """Return the pixels along an axis, its zero in its middle, that a ball reaches."""
    first, last = ((middle_mm + side * radius_mm) / pixel_mm + matrix / 2 for side in (-1.0, 1.0))
    return np.arange(max(0, int(np.floor(first))), min(matrix, int(np.floor(last)) + 1))


def squares(pixels: NDArray[np.intp], middle_mm: float, pixel_mm: float, matrix: int) -> Vector:
    """Return the squared distances along an axis of `SUPERSAMPLED` points in each pixel to the middle of a ball."""
    points = np.arange(pixels.size * SUPERSAMPLED) + 0.5
    first = pixels[0] if pixels.size else 0
    at: Vector = (first + points / SUPERSAMPLED - matrix / 2) * pixel_mm
    return (at - middle_mm) ** 2
