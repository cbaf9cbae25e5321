"""The published system's preprocessing, put together from MONAI's own transforms: the oracle of the preset `fmhct`.

What it does is a matter of record (arXiv 2502.02779): NIfTI as stored, axes turned to RAS, 1 mm on all axes by
interpolating cubic splines (`Spacing` with order 3, which is SciPy's `map_coordinates` in float64, the border repeated
outwards), cropped to the box of what is above 0 HU, three display windows, each axis averaged down to 96 voxels
(PyTorch's `area`, windows first), and cast to float16. Tensors are (channels, R, A, S), as MONAI has them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from monai.transforms import (
    Compose,
    CropForeground,
    EnsureChannelFirst,
    LoadImage,
    Orientation,
    Resize,
    ScaleIntensityRange,
    Spacing,
)
from numpy.typing import NDArray

SPACING_MM = (1.0, 1.0, 1.0)
SPLINE_ORDER = 3
WINDOWS_HU = ((40, 80), (80, 200), (600, 2800))
"""Center and width of each channel."""
SIZE = 96


def published_windows(
    path: Path, windows_hu: Sequence[tuple[float, float]] = WINDOWS_HU, size: int = SIZE
) -> NDArray[np.float32]:
    """Run the published preprocessing on a NIfTI file, up to its last step, the cast.

    Args:
        path: the file.
        windows_hu: center and width of each channel.
        size: voxels a side.

    Returns:
        (C, size, size, size) float32 in [0, 1], axes to R, A and S.
    """
    cropped = until_windows()(str(path))
    channels = []
    for center, width in windows_hu:
        scale = ScaleIntensityRange(center - width / 2, center + width / 2, 0.0, 1.0, clip=True)
        channels.append(Resize((size, size, size), mode="area")(scale(cropped)))
    windowed: NDArray[np.float32] = np.concatenate([channel.numpy() for channel in channels]).astype(np.float32)
    return windowed


@cache
def until_windows() -> Compose:
    """Return the steps up to the crop, made once: making a reader looks for libraries, for a second."""
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    with warnings.catch_warnings():  # of a DICOM decoder for GPUs that is of no use here
        warnings.filterwarnings("ignore", message="NvImgCodec")
        load = LoadImage(reader="NibabelReader", image_only=True)
    return Compose(
        [
            load,
            EnsureChannelFirst(),
            Orientation(axcodes="RAS", labels=None),
            Spacing(pixdim=SPACING_MM, mode=SPLINE_ORDER, padding_mode="border"),
            CropForeground(),
        ]
    )


def published_input(path: Path) -> NDArray[np.float16]:
    """Return what the published networks are fed: `published_windows`, (C, 96, 96, 96), cast to float16."""
    return published_windows(path).astype(np.float16)
