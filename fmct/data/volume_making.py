"""From a scan to a volume, by whichever preset the settings are of."""

from __future__ import annotations

from fmct.data.fmhct import preprocess_fmhct
from fmct.data.geometry import SliceStack
from fmct.data.preprocessing import preprocess_stack
from fmct.data.presets import AnySettings, FmhctSettings
from fmct.data.rejection import RejectCode
from fmct.data.volume_file import Volume


def make_volume(
    stack: SliceStack,
    settings: AnySettings,
    name: str = "the scan",
    skip: frozenset[RejectCode] = frozenset(),
) -> Volume:
    """Preprocess a scan.

    Args:
        stack: the scan as measured.
        settings: of any preset.
        name: how errors call the scan.
        skip: rules that are switched off for this scan, of IMPLAUSIBLE_HU and NOT_A_HEAD.

    Raises:
        ScanError: IMPLAUSIBLE_HU when the values are no HU; NOT_A_HEAD when it shows none.
    """
    if isinstance(settings, FmhctSettings):
        return preprocess_fmhct(stack, settings, name, skip)
    return preprocess_stack(stack, settings, name, skip)
