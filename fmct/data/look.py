"""A look at some pixels of a scan, to judge what headers can't say."""

from __future__ import annotations

from collections.abc import Callable

from fmct.data.geometry import SliceStack
from fmct.data.plausibility import implausible_hu
from fmct.data.rejection import RejectCode
from fmct.data.scan import Scan


def look_at_stack(scan: Scan) -> SliceStack:
    """Read a scan for the rules on pixels."""
    return scan.load()


def not_hu(stack: SliceStack) -> str | None:
    """Say why values can't be HU."""
    return implausible_hu(stack.hu)


PIXEL_RULES: tuple[tuple[RejectCode, Callable[[SliceStack], str | None]], ...] = ((RejectCode.IMPLAUSIBLE_HU, not_hu),)
