"""Whether a convolution kernel is sharp (bone, lung) or soft (tissue), by the vendors' ways of naming them."""

from __future__ import annotations

import re

SHARP_WORDS = ("BONE", "LUNG", "EDGE", "DETAIL", "SHARP", "ULTRA", "INNER", "OSSEOUS")
SHARPEST_SOFT_SIEMENS = 49
SHARP_PHILIPS = {"C", "D", "E", "YC", "YD", "YE", "L", "YL"}
SIEMENS = re.compile(r"[BHJUIQ][A-Z]?(\d{2})[A-Z]?", re.IGNORECASE)
TOSHIBA = re.compile(r"FC(\d{2})", re.IGNORECASE)


def is_sharp(kernel: str) -> bool | None:
    """Tell sharp kernels from soft ones; None for names that say nothing.

    GE writes words (STANDARD, SOFT, BONEPLUS), Siemens letters and a sharpness (H31s, J40s, Hr68), Toshiba and Canon
    FC with a number (FC30 to FC39, FC50 to FC59 and FC80 to FC89 are bone and lung), Philips letters (UB, B; D, YD).

    Args:
        kernel: ConvolutionKernel, several values joined by a backslash; the first counts.
    """
    name = kernel.split("\\")[0].strip().upper()
    if not name:
        return None
    siemens, toshiba = SIEMENS.fullmatch(name), TOSHIBA.match(name)
    if any(word in name for word in SHARP_WORDS):
        return True
    if toshiba:
        return 30 <= int(toshiba[1]) <= 39 or 50 <= int(toshiba[1]) <= 59 or 80 <= int(toshiba[1]) <= 89
    if siemens:
        return int(siemens[1]) > SHARPEST_SOFT_SIEMENS
    return name in SHARP_PHILIPS
