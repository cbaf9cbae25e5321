"""Bleeds of phantoms; importing this registers all kinds, in the order of the truth table's columns."""

# isort: off
from fmct.data.phantom.bleeds.intraparenchymal import IPH, LargeIPH
from fmct.data.phantom.bleeds.subdural import SDH, ChronicSDH, LargeSDH
from fmct.data.phantom.bleeds.intraventricular import IVH
from fmct.data.phantom.bleeds.epidural import EDH
from fmct.data.phantom.bleeds.subarachnoid import SAH
# isort: on

__all__ = ["EDH", "IPH", "IVH", "SAH", "SDH", "ChronicSDH", "LargeIPH", "LargeSDH"]
