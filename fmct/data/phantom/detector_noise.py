"""Noise of one slice: smoothed alike everywhere; or as filtered back projection leaves it, a ramp up to a cut-off."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import fft, ndimage

from fmct.data.phantom.scanner import Protocol, Scanner
from fmct.data.phantom.shapes import Array

REFERENCE_SLICE_MM = 5.0
FINER = 0.8  # the kernel's length against that of white noise smoothed alike: a real standard kernel's mean frequency
LOWEST_PER_MM = 0.02  # below, the spectrum is flat: interpolation between rays, and what the calibration leaves


def level_hu(scanner: Scanner, protocol: Protocol, slice_mm: float) -> float:
    """Return the noise's standard deviation: less in thick slices and in pixels larger than the scanner's."""
    native = min(1.0, float(np.mean(scanner.pixel_mm)) / protocol.pixel_mm)
    return float(scanner.noise_hu * np.sqrt(REFERENCE_SLICE_MM / slice_mm) * np.sqrt(native))


def noise(scanner: Scanner, protocol: Protocol, slice_mm: float, rng: np.random.Generator) -> Array:
    """Return one slice of noise, (R, C) HU: less in thick slices and large pixels, correlated by the kernel."""
    white = rng.standard_normal((protocol.matrix, protocol.matrix), dtype=np.float32)
    sigma = scanner.noise_correlation_mm / protocol.pixel_mm
    level = level_hu(scanner, protocol, slice_mm)
    if sigma < 0.3:
        return white * np.float32(level)
    ndimage.gaussian_filter(white, sigma, output=white, mode="wrap", truncate=3.0)
    impulse = np.zeros(2 * int(3.0 * sigma + 0.5) + 9)
    impulse[impulse.size // 2] = 1.0
    kept = float((ndimage.gaussian_filter1d(impulse, sigma, truncate=3.0) ** 2).sum())
    return white * np.float32(level / kept)


def ramp_noise(scanner: Scanner, protocol: Protocol, slice_mm: float, rng: np.random.Generator) -> Array:
    """Return one slice of noise, (R, C) HU.

    Its power spectrum is f exp(-(2 pi f s)^2), s the kernel's length: a ramp cut off (Riederer et al. 1978,
    "The noise power spectrum in computed x-ray tomography").
    """
    shape = amplitude(protocol.matrix, protocol.pixel_mm, FINER * scanner.noise_correlation_mm)
    size = (protocol.matrix, protocol.matrix)
    white = fft.rfft2(rng.standard_normal(size, dtype=np.float32), overwrite_x=True)
    white *= shape
    colored: Array = fft.irfft2(white, size, overwrite_x=True)
    return colored * np.float32(level_hu(scanner, protocol, slice_mm))


@cache
def amplitude(matrix: int, pixel_mm: float, correlation_mm: float) -> Array:
    """Return the filter that gives white noise of standard deviation 1 the spectrum, and keeps its deviation."""
    down, across = fft.fftfreq(matrix, pixel_mm), fft.rfftfreq(matrix, pixel_mm)
    square = down[:, None] ** 2 + across[None] ** 2
    ramp = np.sqrt(square + LOWEST_PER_MM**2) * np.exp(-square * (2.0 * np.pi * correlation_mm) ** 2)
    doubled = np.full(across.size, 2.0)  # a real picture's other half
    doubled[0] = 1.0
    if matrix % 2 == 0:
        doubled[-1] = 1.0
    shape: Array = np.sqrt(ramp / ((ramp * doubled).sum() / matrix**2)).astype(np.float32)
    return shape
