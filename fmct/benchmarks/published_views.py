"""The published system's views for self-distillation, put together from MONAI's own transforms: the bench's baseline.

What it does is a matter of record (arXiv 2502.02779): a volume of three windows, 96³, is padded to 224³; two crops of
112 to 224 voxels and two of 64 to 112 are cut from it, and all four are resized to 96³ by area. Each axis is flipped
with probability .2; intensities shift by up to .2 with probability .5; the first large crop is smoothed, the second
bent by a gamma of .2 to 1, with probability .2 each. Tensors are (channels, Z, Y, X).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from monai.transforms import (
    Compose,
    EnsureType,
    RandAdjustContrast,
    RandFlip,
    RandGaussianSmooth,
    RandShiftIntensity,
    RandSpatialCrop,
    Resize,
    SpatialPad,
    Transform,
)
from torch import Tensor

PADDED, SIZE = 224, 96
GLOBAL_SIDES, LOCAL_SIDES = (112, 224), (64, 112)


def published_views(volume: Tensor) -> list[Tensor]:
    """Make two global and two local views: (3, 96, 96, 96) float16 -> four (3, 96, 96, 96) float32."""
    padded = padding()(volume)
    return [chain(padded) for chain in chains()]


def published_crops(volume: Tensor) -> list[Tensor]:
    """Make the same crops without any change of intensity."""
    padded = padding()(volume)
    return [crop(padded) for crop in crops()]


@cache
def padding() -> Compose:
    """Return what comes before the crops."""
    return Compose([EnsureType(dtype=np.float32), SpatialPad((PADDED,) * 3)])


@cache
def crops() -> list[Compose]:
    """Return two global crops and two local ones."""
    sides = (GLOBAL_SIDES, GLOBAL_SIDES, LOCAL_SIDES, LOCAL_SIDES)
    return [
        Compose(
            [RandSpatialCrop((low,) * 3, max_roi_size=(high,) * 3, random_size=True), Resize((SIZE,) * 3, mode="area")]
        )
        for low, high in sides
    ]


@cache
def chains() -> list[Compose]:
    """Return the four crops with what changes their intensity."""
    own: list[list[Transform]] = [
        [RandGaussianSmooth(prob=0.2)],
        [RandAdjustContrast(prob=0.2, gamma=(0.2, 1.0))],
        [],
        [],
    ]
    flips = [RandFlip(prob=0.2, spatial_axis=axis) for axis in range(3)]
    return [
        Compose([crop, *flips, RandShiftIntensity(0.2, prob=0.5), *more])
        for crop, more in zip(crops(), own, strict=True)
    ]
