"""Sampling a batch of volumes: crop, scale, rotation, left-right flip and smoothing, each scan by itself.

What is drawn goes from the host to the device without waiting (`non_blocking`), and nothing comes back: a GPU is still
busy with the step before when its next views are asked for.

B scans, C channels, Z, Y, X voxels. Volumes are RAS: x grows to the patient's right, y to anterior, z to superior.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fmct.views.crops import Crop
from fmct.views.straight import sample_straight
from fmct.views.turned import sample_turned

AIR_HU = -1024.0
SCANS_AT_ONCE = 16
"""On a GPU, so that few calls do much, in memory that is bounded; on a CPU one, which stays in its cache."""


def sample(
    volumes: Tensor,
    crop: Crop,
    voxels: int,
    *,
    boxes: Tensor | None = None,
    outside: float = AIR_HU,
    blur_voxels: Tensor | None = None,
) -> Tensor:
    """Sample views, those that aren't turned by matrices, which is faster, the others by trilinear interpolation.

    Args:
        volumes: (B, C, Z, Y, X) int16 or float, Hounsfield units or windows, cubic.
        crop: what was drawn.
        voxels: side of the views.
        boxes: (B, 3, 2) where the views shall lie, from `fmct.views.head_box.head_box`; None: anywhere in the volume.
        outside: what lies outside the volume: air.
        blur_voxels: (B,) standard deviations of a Gaussian over each view, in its voxels, on the host; 0 or None: none.

    Returns:
        (B, C, voxels, voxels, voxels) float32, in the volumes' units.
    """
    B, C = volumes.shape[:2]
    views = torch.empty(B, C, voxels, voxels, voxels, device=volumes.device)
    center = crop.center_zyx(boxes).to(volumes.device, non_blocking=True)
    sigma = torch.zeros(B) if blur_voxels is None else blur_voxels
    turned = crop.turned
    for rows, way in ((~turned, sample_straight), (turned, sample_turned)):
        if not bool(rows.any()):
            continue
        for some in torch.split(rows.nonzero().flatten(), scans_at_once(volumes)):
            here = slice(int(some[0]), int(some[-1]) + 1)
            if int(some[-1]) - int(some[0]) == len(some) - 1:  # neighbors: nothing need be copied
                way(volumes[here], crop.of(some), center[here], outside, sigma[some], views[here])
                continue
            on_device = some.to(volumes.device, non_blocking=True)
            part = views.new_empty(len(some), *views.shape[1:])
            way(volumes[on_device], crop.of(some), center[on_device], outside, sigma[some], part)
            views.index_copy_(0, on_device, part)
    return views


def scans_at_once(volumes: Tensor) -> int:
    """Return how many scans to work on together where these are."""
    return 1 if volumes.device.type == "cpu" else SCANS_AT_ONCE


def together(scans: Tensor) -> list[slice]:
    """Return which scans of a batch to work on together where they are, in order."""
    step = scans_at_once(scans)
    return [slice(first, first + step) for first in range(0, len(scans), step)]
