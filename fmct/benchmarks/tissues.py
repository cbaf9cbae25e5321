"""What the tissues of a head look like to a scanner: HU, contrast and noise, measured alike in phantom and patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmct.data.geometry import SliceStack

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

BONE_HU = 300.0
SMOOTHING_MM = 0.7  # standard deviation, before tissues of the brain are told apart
CORTEX_MM, WHITE_MM = (5.0, 9.0), (16.0, 45.0)  # depth under the inner table
CSF_HU, BRAIN_HU, FAT_HU, MUSCLE_HU = (-5.0, 15.0), (16.0, 60.0), (-140.0, -60.0), (25.0, 90.0)
NOISE_MM = 2.0  # what is smoother counts as anatomy
LEAST_AREA_CM2 = 70.0  # of a slice through the cavity
TISSUES = ("cortex", "white", "csf", "bone", "fat", "muscle")


@dataclass(frozen=True)
class Tissues:
    """Samples of one head.

    Attributes:
        hu: raw values of each of `TISSUES`, (n,).
        noise_hu: standard deviation of what is finer than `NOISE_MM` in white matter.
        noise_frequency: frequency along rows, in cycles per mm (see `noise_of`).
        cupping_hu: how much brighter the brain is under the bone than 20 mm deeper.
    """

    hu: dict[str, Floats]
    noise_hu: float
    noise_frequency: float
    cupping_hu: float

    @property
    def contrast_hu(self) -> float:
        """Cortex minus white matter, by medians."""
        return float(np.median(self.hu["cortex"]) - np.median(self.hu["white"]))


def measure_tissues(stack: SliceStack) -> Tissues:
    """Measure the slices of a head that cut the cranial cavity.

    Args:
        stack: a head CT; slices about axial.

    Raises:
        ValueError: when no slice shows a closed skull, or a tissue is nowhere.
    """
    pixel = float(np.linalg.norm(stack.row_step_ras_mm))
    samples: dict[str, list[Floats]] = {name: [] for name in TISSUES}
    under_bone: list[Floats] = []
    deeper: list[Floats] = []
    deviations, frequencies = [], []
    for plane in stack.hu.astype(np.float32):
        bone, cavity = skull_and_cavity(plane, pixel)
        if cavity.sum() * pixel**2 < 100.0 * LEAST_AREA_CM2:
            continue
        depth = (ndimage.distance_transform_edt(cavity) * pixel).astype(np.float32)
        smooth = ndimage.gaussian_filter(plane, SMOOTHING_MM / pixel)
        brain = within(smooth, BRAIN_HU) & cavity
        white = brain & within(depth, WHITE_MM)
        masks = {
            "cortex": brain & within(depth, CORTEX_MM),
            "white": white,
            "csf": within(smooth, CSF_HU) & (depth > WHITE_MM[0]),
            "bone": bone,
            "fat": within(smooth, FAT_HU) & ~cavity,
            "muscle": within(smooth, MUSCLE_HU) & ~cavity & ~ndimage.binary_dilation(bone, iterations=3),
        }
        for name, mask in masks.items():
            samples[name].append(plane[mask])
        under_bone.append(plane[brain & within(depth, (4.0, 6.0))])
        deeper.append(plane[brain & within(depth, (22.0, 30.0))])
        deviation, frequency = noise_of(plane, ndimage.binary_erosion(white, iterations=2), pixel)
        deviations.append(deviation)
        frequencies.append(frequency)
    if not deviations:
        raise ValueError("no slice shows a closed skull")
    hu = {name: np.concatenate(parts) for name, parts in samples.items()}
    absent = [name for name, values in hu.items() if not values.size]
    if absent:
        raise ValueError(f"no slice shows any {', '.join(absent)}")
    cupping = float(np.median(np.concatenate(under_bone)) - np.median(np.concatenate(deeper)))
    return Tissues(hu, float(np.nanmedian(deviations)), float(np.nanmedian(frequencies)), cupping)


def within(values: Floats, bounds: tuple[float, float]) -> Mask:
    """Return where values lie between two bounds."""
    return (values > bounds[0]) & (values < bounds[1])


def skull_and_cavity(plane: Floats, pixel_mm: float) -> tuple[Mask, Mask]:
    """Return the bone of one slice, and the largest area that it encloses."""
    bone = plane > BONE_HU
    closed = ndimage.binary_closing(bone, iterations=max(1, round(1.0 / pixel_mm)))
    enclosed = ndimage.binary_fill_holes(closed) & ~closed
    areas, count = ndimage.label(ndimage.binary_opening(enclosed, iterations=max(1, round(2.0 / pixel_mm))))
    if not count:
        return bone, np.zeros_like(bone)
    cavity: Mask = areas == 1 + int(np.argmax(ndimage.sum_labels(enclosed, areas, range(1, count + 1))))
    return bone, cavity


def noise_of(plane: Floats, mask: Mask, pixel_mm: float) -> tuple[float, float]:
    """Return the noise's standard deviation in a mask and its frequency, nan where the mask is small.

    The frequency is that of a sine whose neighbors along a row differ as much as those of the noise do:
    mean((n[i+1] - n[i])^2) = 2 var(n) (1 - cos(2 pi f p)).
    """
    if mask.sum() < 500:
        return np.nan, np.nan
    detail = plane - ndimage.gaussian_filter(plane, NOISE_MM / pixel_mm)
    both = mask[:, 1:] & mask[:, :-1]
    variance = float(detail[mask].var())
    difference = float(((detail[:, 1:] - detail[:, :-1])[both] ** 2).mean())
    cosine = np.clip(1.0 - difference / (2.0 * variance), -1.0, 1.0)
    return float(np.sqrt(variance)), float(np.arccos(cosine) / (2.0 * np.pi * pixel_mm))
