"""What makes a face: nose, lips, eyelids, chin and ears, in proportions that differ from head to head.

All coordinates are of the average head (see `skull`), |x| standing for both sides; distances are negative inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fmct.data.phantom.shapes import Array, capsule, ellipsoid, mirrored, smooth_max, smooth_min

MOUTH_MM = -94.0  # height of the mouth
SEAM_MM = 9.0  # over which features blend into the face


@dataclass(frozen=True)
class Proportions:
    """Sizes against the average face."""

    nose: float
    nose_width: float
    lips: float
    mouth_width: float
    chin: float
    lids: float
    ears: float

    @classmethod
    def of(cls, seed: int) -> Proportions:
        """Draw them; the same seed gives the same face."""
        nose, nose_width, lips, mouth_width, chin, lids, ears = np.random.default_rng([seed, 7]).uniform(-1.0, 1.0, 7)
        return cls(
            nose=1.0 + 0.22 * nose,
            nose_width=1.0 + 0.25 * nose_width,
            lips=1.0 + 0.3 * lips,
            mouth_width=1.0 + 0.15 * mouth_width,
            chin=1.0 + 0.3 * chin,
            lids=1.0 + 0.25 * lids,
            ears=1.0 + 0.18 * ears,
        )


class Features:
    """The features of one face."""

    def __init__(self, seed: int) -> None:
        self.shape = Proportions.of(seed)

    def added(self, template_mm: Array, skin_mm: Array) -> None:
        """Lower the distances to the skin, (N,) in place, to where the features of the face are."""
        x, y, z = template_mm
        front = (y > 30.0) & (np.abs(x) < 75.0)
        upper = np.flatnonzero(front & (z > -95.0) & (z < 5.0))
        if upper.size:
            points = np.ascontiguousarray(template_mm[:, upper])
            skin = smooth_min(skin_mm[upper], self.lids(points), 8.0)
            skin_mm[upper] = smooth_min(skin, self.nose(points), SEAM_MM)
        lower = np.flatnonzero(front & (z > -150.0) & (z < -60.0))
        if lower.size:
            points = np.ascontiguousarray(template_mm[:, lower])
            skin = smooth_min(smooth_min(skin_mm[lower], self.chin(points), 14.0), self.lips(points), SEAM_MM)
            skin_mm[lower] = np.maximum(skin, -self.openings(points))
        sides = np.flatnonzero((np.abs(x) > 45.0) & (np.abs(y + 31.0) < 40.0) & (z < 15.0) & (z > -100.0))
        if sides.size:
            ears = self.ears(np.ascontiguousarray(template_mm[:, sides]))
            skin_mm[sides] = smooth_min(skin_mm[sides], ears, 3.0)

    def nose(self, template_mm: Array) -> Array:
        """Return the distance to bridge, tip and wings."""
        tip = 76.0 + 16.0 * self.shape.nose
        width = self.shape.nose_width
        bridge = capsule(template_mm, (0.0, 75.0, -34.0), (0.0, tip, -66.0), 6.0, 10.0 * (0.5 + 0.5 * width))
        wing = ellipsoid(mirrored(template_mm), (9.5 * width, tip - 9.0, -69.0), (6.0, 9.0, 6.5))
        return smooth_min(bridge, wing, 5.0)

    def lips(self, template_mm: Array) -> Array:
        """Return the distance to both lips."""
        size, width = self.shape.lips, 25.0 * self.shape.mouth_width
        upper = ellipsoid(template_mm, (0.0, 80.0, MOUTH_MM + 5.2), (width, 8.5 * size, 6.0))
        lower = ellipsoid(template_mm, (0.0, 78.0, MOUTH_MM - 5.4), (0.9 * width, 9.0 * size, 6.2))
        return np.minimum(upper, lower)

    def chin(self, template_mm: Array) -> Array:
        """Return the distance to the chin."""
        return ellipsoid(template_mm, (0.0, 60.0, -117.0), (24.0, 10.0 + 7.0 * self.shape.chin, 15.0))

    def lids(self, template_mm: Array) -> Array:
        """Return the distance to eyelids and the fat behind them, both sides."""
        return ellipsoid(mirrored(template_mm), (32.0, 66.0, -38.0), (22.0, 10.0 + 4.0 * self.shape.lids, 16.0))

    def ears(self, template_mm: Array) -> Array:
        """Return the distance to both auricles."""
        pair, size = mirrored(template_mm), self.shape.ears
        ear = ellipsoid(pair, (75.0, -31.0, -38.0), (8.0, 15.0 * size, 29.0 * size))
        hollow = ellipsoid(pair, (80.0, -26.0, -38.0), (6.0, 9.0 * size, 20.0 * size))
        return smooth_max(ear, -hollow, 2.0)

    def openings(self, template_mm: Array) -> Array:
        """Return the distance to the cleft of the mouth and the nostrils."""
        tip = 76.0 + 16.0 * self.shape.nose
        mouth = ellipsoid(template_mm, (0.0, 90.0, MOUTH_MM), (21.0 * self.shape.mouth_width, 13.0, 1.3))
        nostril = capsule(
            mirrored(template_mm), (5.5 * self.shape.nose_width, tip - 6.0, -82.0), (5.0, tip - 14.0, -64.0), 3.2
        )
        return np.minimum(mouth, nostril)
