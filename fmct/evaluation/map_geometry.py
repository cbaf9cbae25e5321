"""From the places of a map (patches, cells of a feature map) to millimeters, and onto any grid of voxels.

The network sees a whole volume, stretched evenly over its input (`InputConfig.whole`), and a volume's affine says where
it lies. So every map has an affine of its own, and is interpolated once, straight onto the voxels that are asked for:
those of the network's input, of the volume, or of the scan as it was measured.

Arrays are (Z, Y, X); affines take indices (x, y, z) to RAS millimeters, as in NIfTI.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmct.data.own_grid import VoxelGrid

Triple = tuple[float, float, float]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Lattice:
    """Where the places of a map are on the network's input.

    Attributes:
        first_zyx: center of the first place, in voxels of the input.
        step_zyx: distance of neighboring places, in voxels of the input: a patch's edge, or a layer's stride.
    """

    first_zyx: Triple
    step_zyx: Triple

    @classmethod
    def of_patches(cls, patch_zyx: tuple[int, int, int]) -> Lattice:
        """Return the lattice of a vision transformer's patches."""
        z, y, x = patch_zyx
        return cls(((z - 1) / 2, (y - 1) / 2, (x - 1) / 2), (z, y, x))

    @classmethod
    def of_stride(cls, stride: int) -> Lattice:
        """Return the lattice of convolutions with odd kernels padded by half: centered on every n-th voxel."""
        return cls((0, 0, 0), (stride, stride, stride))


INPUT_VOXELS = Lattice.of_stride(1)


def lattice_affine(lattice: Lattice, input_voxels: int, volume: VoxelGrid) -> NDArray[np.float64]:
    """Return the affine of a map's places.

    Args:
        lattice: the map's.
        input_voxels: side of the network's input.
        volume: the voxels that were stretched over it.

    Returns:
        (4, 4) from indices of places (x, y, z) to RAS millimeters.
    """
    to_volume = np.eye(4)
    for axis in range(3):  # x, y, z
        stretch = volume.shape_zyx[2 - axis] / input_voxels
        to_volume[axis, axis] = lattice.step_zyx[2 - axis] * stretch
        to_volume[axis, 3] = (lattice.first_zyx[2 - axis] + 0.5) * stretch - 0.5
    return volume.affine_ras @ to_volume


def onto(values: Floats, affine: NDArray[np.float64], target: VoxelGrid, within: VoxelGrid | None = None) -> Floats:
    """Interpolate a map linearly at the voxels of a grid; beyond its outermost places it stays as it is there.

    Args:
        values: (z, y, x), or (C, z, y, x) for several at once.
        affine: of the map's places.
        target: the voxels wanted.
        within: what the network saw of the scan; 0 outside of it. None: nothing is cut off.

    Returns:
        (Z, Y, X) or (C, Z, Y, X) float32.
    """
    if values.ndim == 4:
        return np.stack([onto(one, affine, target, within) for one in values])
    to_places = np.linalg.inv(affine) @ target.affine_ras
    interpolated = sampled(values, to_places, target, order=1, mode="nearest")
    if within is not None:
        to_volume = np.linalg.inv(within.affine_ras) @ target.affine_ras
        inside = sampled(np.ones(within.shape_zyx, np.uint8), to_volume, target, order=0, mode="grid-constant")
        interpolated *= inside
    return interpolated


def sampled(
    values: NDArray[Any],
    matrix: NDArray[np.float64],
    target: VoxelGrid,
    order: Literal[0, 1],
    mode: Literal["nearest", "grid-constant"],
) -> Floats:
    """Sample (z, y, x) values by scipy's `affine_transform`; the matrix takes the target's indices to the values'."""
    turned = matrix[2::-1, [2, 1, 0, 3]]  # scipy's indices run as the arrays' axes do
    out: Floats = ndimage.affine_transform(
        values, turned[:, :3], turned[:, 3], target.shape_zyx, output=np.float32, order=order, mode=mode
    )
    return out
