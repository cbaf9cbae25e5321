"""LayerCAM: where a convolutional network's feature maps count for an output.

Jiang et al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP 30, 5875-5888,
equations 6 and 7. MONAI has CAM and Grad-CAM, which weigh whole channels and so are of use on the last layer only.

Shapes: B scans, C channels, (z, y, x) places of a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fmct.data.own_grid import VoxelGrid
from fmct.evaluation.map_geometry import Lattice, lattice_affine, onto

CAM_STAGES = (2, 3)
"""Strides of 4 and 8 voxels. At blobs planted in 32³ voxels they point 2.7 times as chance does, the last two 1.3."""


def layer_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """Weigh every activation by its own gradient, where that is positive, and sum over channels.

    Args:
        features: (B, C, z, y, x) activations of a layer.
        gradients: of the sum over scans of an output with respect to them.

    Returns:
        (B, z, y, x) float32, not negative.
    """
    return (features.float() * gradients.float().clamp(min=0)).sum(1).clamp(min=0)


def fused(cams: Sequence[NDArray[np.float32]], lattices: Sequence[Lattice], input_voxels: int) -> NDArray[np.float32]:
    """Return the greatest of the maps of several stages, each scaled to 1 (Jiang et al. 2021, section III-D).

    Args:
        cams: (z, y, x) of each stage, the finest first, on whose places the others are interpolated.
        lattices: of the stages.
        input_voxels: side of the network's input.
    """
    unit = VoxelGrid(np.eye(4), (input_voxels,) * 3)
    affines = [lattice_affine(lattice, input_voxels, unit) for lattice in lattices]
    z, y, x = cams[0].shape
    finest = VoxelGrid(affines[0], (z, y, x))
    scaled = [
        onto(cam / max(float(cam.max()), 1e-12), affine, finest) for cam, affine in zip(cams, affines, strict=True)
    ]
    out: NDArray[np.float32] = np.max(scaled, axis=0)
    return out
