"""What a scan misses of the head at its ends, as hurried scans do, and never of what is wrong with it."""

from __future__ import annotations

import numpy as np

from fmct.data.geometry import LPS_TO_RAS
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.render import Rendering
from fmct.data.phantom.scanner import Protocol

FORAMEN_MM, VERTEX_MM = -60.0, 86.0  # of the average head, about its anterior commissure
NEAR_MM = 4.0  # around lesions, that is kept too
VISIBLE = 0.02  # share of a voxel


def shortened(protocol: Protocol, head: HeadParameters, rendering: Rendering) -> Protocol:
    """Return the protocol without the slices that it misses.

    Args:
        protocol: with effects; it covers the head.
        head: whose head.
        rendering: of the head under all slices, with its lesions: slices that show any are kept.
    """
    if protocol.effects is None or not any(protocol.effects.missed_mm):
        return protocol
    base, vertex = protocol.effects.missed_mm
    height, z = head.scale[2], head.pose.shift_mm[2]
    low = z + FORAMEN_MM * height + base if base else -np.inf
    high = z + VERTEX_MM * height - vertex if vertex else np.inf
    with_lesions = lesion_range(protocol, rendering)
    if with_lesions is not None:
        low, high = min(low, with_lesions[0]), max(high, with_lesions[1])
    kept = [k for k, at in enumerate(protocol.table_z_mm) if low <= at <= high]
    return protocol.model_copy(
        update={
            "slice_mm": tuple(protocol.slice_mm[k] for k in kept),
            "table_z_mm": tuple(protocol.table_z_mm[k] for k in kept),
        }
    )


def lesion_range(protocol: Protocol, rendering: Rendering) -> tuple[float, float] | None:
    """Return the lowest and highest table position whose slice shows a lesion, or None without lesions."""
    tangent = np.tan(np.deg2rad(protocol.tilt_deg))
    along_y = tangent * (LPS_TO_RAS[1] * rendering.grid.axis_mm(1) - protocol.center_mm[1])
    positions = rendering.grid.axis_mm(2)[:, None] + along_y  # (Z, Y)
    shown = [positions[(share > VISIBLE).any(axis=2)] for share in rendering.lesions.values()]
    table = np.concatenate([np.empty(0), *shown])
    if not table.size:
        return None
    margin = NEAR_MM + max(protocol.slice_mm) / 2
    return float(table.min() - margin), float(table.max() + margin)
