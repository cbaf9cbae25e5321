"""What findings do to what is around them: shift of the midline, a deformation of its own, and mass effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.blob import Blob
from fmct.data.phantom.findings import Finding, altered, register
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.shapes import Array, smooth_step
from fmct.data.phantom.skull import VAULT_CENTER_MM, VAULT_RADII_MM, Skull
from fmct.data.phantom.vault import outward, vault_mm
from fmct.data.phantom.ventricles import LATERAL_MM, OCCIPITAL_HORN_MM, TEMPORAL_HORN_MM

POSITIVE_FROM_MM = 5.0  # the bound at which clinics call it a shift
MASS_EFFECT_FROM_MM = 2.5  # displacement from which a reader sees ventricles or sulci give way
CORTEX_DEPTH_MM = 14.0  # of landmarks under the vault
PAIRED_MM = ((37.0, -2.0, 3.0), (15.0, -29.0, -10.0), (25.0, -64.0, -33.0))  # insula, ambient cistern, cerebellum
UNPAIRED_MM = ((0.0, -10.0, -1.0), (0.0, -47.0, -34.0), (0.0, -41.0, -6.0))  # third, fourth ventricle, quadrigeminal
HELD_MM, FREE_MM = 8.0, 42.0  # depth under the vault where nothing moves, and from which all moves together


@register
class MidlineShift(Finding):
    """Displacement of septum, ventricles and brain to one side, none at the skull and in the posterior fossa."""

    name: ClassVar[str] = "MidlineShift"
    labels: ClassVar[tuple[str, ...]] = ("MidlineShift",)
    severity_names: ClassVar[tuple[str, ...]] = ("midline_shift_mm",)

    shift_mm: float = Field(ge=0, le=16, description="of the septum pellucidum")
    toward: Literal[-1, 1] = Field(description="1 to the right, -1 to the left")

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw a shift of 5 to 14 mm, away from a bleed where there is one, and larger with a larger one."""
        burden = sum(sum(other.severity().values()) for other in others if other.bleed)
        shift = 5.2 + 8.8 * rng.beta(1.2 + min(burden / 10.0, 1.5), 2.5)
        return cls(shift_mm=float(shift), toward=away_from(others, rng))

    def severity(self) -> dict[str, float]:
        """Return the displacement of the septum in mm."""
        return {"midline_shift_mm": self.shift_mm}

    def positive(self) -> bool:
        """Return whether the shift reaches `POSITIVE_FROM_MM`."""
        return self.shift_mm >= POSITIVE_FROM_MM

    def displacement(self, head: HeadParameters, points_mm: Array, depth_mm: Array) -> Array | None:
        """Move tissue along x: by all of the shift in the middle of the brain, less toward skull and tentorium."""
        template = points_mm / np.array(head.scale, np.float32)[:, None]
        # Depth under the plain vault, so that the floor of the cavity doesn't hold the third ventricle.
        relative = (template - np.array(VAULT_CENTER_MM, np.float32)[:, None]) / np.array(VAULT_RADII_MM, np.float32)[
            :, None
        ]
        under_vault = (1.0 - np.sqrt((relative**2).sum(0))) * np.float32(VAULT_RADII_MM[0])
        share = smooth_step(under_vault, HELD_MM, FREE_MM) * smooth_step(template[2], -32.0, -4.0)
        share *= smooth_step(depth_mm, 1.0, 10.0)
        moved = np.zeros_like(points_mm)
        moved[0] = share * np.float32(self.shift_mm * self.toward)
        return moved


@register
class SlightShift(MidlineShift):
    """A shift too small to be called one: it tells a model that learns "any asymmetry" from one that measures."""

    name: ClassVar[str] = "SlightShift"

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw a shift of up to 4 mm."""
        return cls(shift_mm=float(rng.uniform(0.5, 4.0)), toward=away_from(others, rng))


@register
class MassEffect(Finding):
    """How far the other findings push what is around them, ventricles and cortex; it follows and paints nothing."""

    name: ClassVar[str] = "MassEffect"
    labels: ClassVar[tuple[str, ...]] = ("MassEffect",)
    severity_names: ClassVar[tuple[str, ...]] = ("mass_effect_mm",)

    pushed_mm: float = Field(ge=0, description="greatest displacement of a landmark or of what borders on a body")

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Work out how far others push the landmarks and what borders on them; slight shifts are left out."""
        head = altered(head, others)
        bodies = [body for body in (getattr(other, "blob", None) for other in others) if isinstance(body, Blob)]
        points = landmarks_mm(head)
        for body in bodies:  # where a body is, nothing else is pushed
            points = points[:, body.distance(points) > 0.0]
        points = np.concatenate([points, *(around(body) for body in bodies)], axis=1)
        depth = -Skull(head).cavity(points)
        points, depth = points[:, depth > 0.0], depth[depth > 0.0]
        total = np.zeros_like(points)
        for other in others:
            moved = other.displacement(head, points, depth) if other.positive() else None
            if moved is not None:
                total += moved
        return cls(pushed_mm=float(np.sqrt((total**2).sum(0)).max()))

    def severity(self) -> dict[str, float]:
        """Return the greatest displacement in mm."""
        return {"mass_effect_mm": self.pushed_mm}

    def positive(self) -> bool:
        """Return whether it reaches `MASS_EFFECT_FROM_MM`."""
        return self.pushed_mm >= MASS_EFFECT_FROM_MM


def landmarks_mm(head: HeadParameters) -> Array:
    """Return what readers look at, (3, N) in the head's frame: ventricles, cisterns, insulae, cortex of the vault."""
    azimuth, elevation = np.meshgrid((-70.0, -35.0, 0.0, 35.0, 70.0), (5.0, 25.0, 50.0, 75.0))
    direction = outward(azimuth.ravel(), elevation.ravel())
    cortex = np.array(VAULT_CENTER_MM)[:, None] + direction * (vault_mm(direction) - CORTEX_DEPTH_MM)
    ventricles = [center for center, _ in (*LATERAL_MM, *OCCIPITAL_HORN_MM, *TEMPORAL_HORN_MM)]
    right = np.concatenate([np.array([*ventricles, *PAIRED_MM]).T, cortex], axis=1)
    both = np.concatenate([right, right * np.array([[-1.0], [1.0], [1.0]]), np.array(UNPAIRED_MM).T], axis=1)
    points: Array = (both * np.array(head.scale)[:, None]).astype(np.float32)
    return points


def around(body: Blob) -> Array:
    """Return places on the ball of a body's volume, (3, 26): what borders on it."""
    steps = np.stack(np.meshgrid((-1.0, 0.0, 1.0), (-1.0, 0.0, 1.0), (-1.0, 0.0, 1.0))).reshape(3, -1)
    steps = steps[:, (steps != 0).any(0)]
    places: Array = np.array(body.center_mm)[:, None] + steps / np.linalg.norm(steps, axis=0) * body.radius_mm
    return places.astype(np.float32)


def away_from(others: Sequence[Finding], rng: np.random.Generator) -> Literal[-1, 1]:
    """Return the side opposite to the first finding that has one, otherwise a random side."""
    sides = [int(other.side) for other in others if hasattr(other, "side")]
    toward = -sides[0] if sides else (1 if rng.random() < 0.5 else -1)
    return 1 if toward > 0 else -1
