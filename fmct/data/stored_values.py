"""From the values that a DICOM file stores to HU: the bits that count, the padding, slope and intercept.

MONOCHROME1 says how to show an image, not what its values mean, so it changes nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmct.data.geometry import PADDING_HU

HIGHEST_HU = 32767
LARGEST_FACTOR = 1e6
AIR_BELOW_HU = -900.0
"""Padding of such values can't be mistaken for tissue."""


class NoHUError(ValueError):
    """Values that can't be turned into HU."""


def used_bits(whole: NDArray[Any], stored: int, high: int, signed: bool) -> NDArray[Any]:
    """Return the bits of each pixel that mean something (PS3.5 8.1.1), with their sign.

    The others may hold anything: old scanners draw overlays into them, which would read as thousands of HU.

    Args:
        whole: unsigned, any shape.
        stored: how many bits count.
        high: number of the highest of them.
        signed: whether they are a two's complement.

    Returns:
        The values, in as many bits as before.

    Raises:
        ValueError: when the bits that count aren't the lowest, and those below them aren't empty: then the header is
            wrong about one or the other.
    """
    allocated = 8 * whole.dtype.itemsize
    below = high + 1 - stored
    if below > 0:
        if (whole & whole.dtype.type((1 << below) - 1)).any():
            raise ValueError("values below the lowest bit")
        whole = whole >> whole.dtype.type(below)
    unused = allocated - stored
    if not unused:
        return whole.view(whole.dtype.str.replace("u", "i")) if signed else whole
    values = whole.view(whole.dtype.str.replace("u", "i")) if signed else whole
    top = 1 << (stored - signed)
    if values.size and values.max() < top and (not signed or values.min() >= -top):
        return values  # nothing in the bits that don't count
    raised = whole << whole.dtype.type(unused)
    raised = raised.view(whole.dtype.str.replace("u", "i")) if signed else raised
    return np.asarray(raised >> raised.dtype.type(unused))


def padding_mask(
    values: NDArray[Any], whole: NDArray[Any], ends: Sequence[float], slope: float, intercept: float
) -> NDArray[np.bool_]:
    """Return which pixels hold no measurement (PS3.3 C.7.5.1.1.2).

    Compared is both what counts of a pixel and all of it: -2000 is often written with more bits than are said to count.
    Some files declare a value that tissue has, too; of such a value only what is connected with the border is padding.

    Args:
        values: (J, I) as stored, without unused bits.
        whole: (J, I) the same with them.
        ends: the first and the last padding value, in any order.
        slope: to HU.
        intercept: likewise.
    """
    low, high = min(ends), max(ends)
    if np.isnan(low):
        return np.asarray(np.isnan(values))
    mask = between(values, low, high)
    if not np.may_share_memory(whole, values):  # else there was nothing in the unused bits
        mask |= between(whole, low, high)
    if max(low * slope + intercept, high * slope + intercept) < AIR_BELOW_HU or not mask.any():
        return mask
    labels, _ = ndimage.label(mask)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.isin(labels, np.unique(border[border > 0]))


def between(values: NDArray[Any], low: float, high: float) -> NDArray[np.bool_]:
    """Return which values lie within two ends, which may be the same."""
    return np.asarray(values == low if low == high else (values >= low) & (values <= high))


def as_stored(value: int, bits_allocated: int, signed: bool) -> int:
    """Return a padding value as the pixels have it: written with the wrong sign, 64036 is -1500 among signed ones.

    Args:
        value: what the header says, of 16 bits.
        bits_allocated: of a pixel.
        signed: whether pixels are.
    """
    bits = min(bits_allocated, 16)
    if not -(1 << 15) <= value < 1 << 16:
        return value
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def to_hu(
    values: NDArray[Any],
    padding: NDArray[np.bool_] | None,
    slope: float,
    intercept: float,
    out: NDArray[np.int16] | None = None,
) -> NDArray[np.int16]:
    """Apply slope and intercept.

    Args:
        values: (J, I) as stored.
        padding: (J, I) where nothing was measured.
        slope: HU per stored unit.
        intercept: HU of a stored 0.
        out: (J, I) where they may be put, to spare a copy.

    Returns:
        (J, I) int16 HU, rounded, `PADDING_HU` where nothing was measured; values beyond int16 are limited.

    Raises:
        NoHUError: when slope or intercept can't be meant, or a measured value isn't finite.
    """
    if slope == 0 or abs(slope) > LARGEST_FACTOR or abs(intercept) > LARGEST_FACTOR:
        raise NoHUError(f"rescale slope {slope:g}, intercept {intercept:g}")
    measured = values if padding is None or values.dtype.kind != "f" else np.where(padding, 0, values)
    if values.dtype.kind == "f" and not np.isfinite(measured).all():
        share = 100 * (1 - np.isfinite(measured).mean())
        raise NoHUError(f"{share:.2g} % of values are NaN or infinite")
    if slope == 1 and intercept == int(intercept) and values.dtype.kind != "f":
        if values.dtype.itemsize == 2 and values.size:
            low, high = int(values.min()) + int(intercept), int(values.max()) + int(intercept)
            if low > PADDING_HU and high <= HIGHEST_HU:  # fits, so that what overflows on the way comes back
                shift = np.array(int(intercept) & 0xFFFF, np.uint16).view(np.int16)
                return marked(np.add(values.view(np.int16), shift, out=out), padding)
        scaled = measured.astype(np.int32 if values.dtype.itemsize < 4 else np.int64) + int(intercept)
    else:
        scaled = np.rint(measured * float(slope) + float(intercept))
    return marked(np.clip(scaled, PADDING_HU + 1, HIGHEST_HU).astype(np.int16), padding)


def marked(hu: NDArray[np.int16], padding: NDArray[np.bool_] | None) -> NDArray[np.int16]:
    """Mark where nothing was measured, in place."""
    if padding is not None:
        np.copyto(hu, np.int16(PADDING_HU), where=padding)
    return hu
