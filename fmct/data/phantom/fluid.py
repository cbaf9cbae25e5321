"""Where cerebrospinal fluid is: kept beside the HU while a brain is painted, for bleeds that lie in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from fmct.data.phantom.shapes import Array, Indices


@dataclass(frozen=True)
class Fluid:
    """Shares of each voxel, (N,) float32 in [0, 1], that fluid fills; both together are what the HU were mixed from.

    Attributes:
        subarachnoid: in sulci and fissures, around the cerebellum and in the cisterns.
        ventricular: in lateral, third and fourth ventricles.
    """

    subarachnoid: Array
    ventricular: Array

    @classmethod
    def nowhere(cls, points: int) -> Self:
        """Return shares of 0, to be filled in while painting."""
        return cls(np.zeros(points, np.float32), np.zeros(points, np.float32))

    def displaced_by(self, share: Array, where: Indices | slice = slice(None)) -> None:
        """Lay tissue over it in place: `share`, (M,), of the voxels `where`."""
        for fluid in (self.subarachnoid, self.ventricular):
            fluid[where] -= share * fluid[where]

    def add_inner(self, where: Indices, ventricles: Array, cisterns: Array) -> None:
        """Lay ventricles and cisterns, (M,) shares of the voxels `where`, over what is there; ventricles first."""
        either = np.maximum(ventricles, cisterns)
        self.subarachnoid[where] += either * (1.0 - self.subarachnoid[where]) - ventricles
        self.ventricular[where] = ventricles
