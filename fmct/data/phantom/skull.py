"""The skull: cranial cavity, floor with its three fossae, bone of varying thickness, scalp.

The frame of a head has its origin at the anterior commissure; x points right, y anterior, z superior, in mm.
Landmarks are of an average adult and are scaled to each head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fmct.data.phantom.details import Details
from fmct.data.phantom.floor import below_floor
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.noise import NoiseField, PlaneWaves
from fmct.data.phantom.shapes import (
    Array,
    Indices,
    capsule,
    mix,
    share_between,
    share_inside,
    smooth_max,
    smooth_min,
    smooth_step,
)

COMPACT_HU, DIPLOE_HU, MARROW_HU, SUTURE_HU = 1400.0, 600.0, 450.0, 350.0
AIR_HU, SKIN_HU, FAT_HU, MUSCLE_HU = -1000.0, 45.0, -95.0, 55.0

VAULT_CENTER_MM = (0.0, -17.0, 8.0)
VAULT_RADII_MM = (69.0, 87.0, 71.0)
VAULT_EXPONENT = 2.25  # 2 is an ellipsoid; above, a squarer one

CANAL_MM = ((0.0, -45.0, -58.0), (0.0, -52.0, -140.0))


@dataclass(frozen=True)
class Shell:
    """Where points lie in the layers of the skull, all (N,) in mm.

    Attributes:
        outside_mm: distance to the inner table, positive outside the cavity.
        bone_mm: thickness of the bone nearest to each point.
        skin_mm: distance to the vault's skin, negative inside (the face adds to it).
    """

    outside_mm: Array
    bone_mm: Array
    skin_mm: Array

    def at(self, indices: Indices) -> Shell:
        """Return the same of some of the points."""
        return Shell(self.outside_mm[indices], self.bone_mm[indices], self.skin_mm[indices])


@dataclass(frozen=True)
class OuterPoints:
    """Points in bone and scalp.

    Attributes:
        points_mm: (3, N) where they are, in the head's frame.
        shell: where they lie in its layers.
        edge_mm: width of a voxel.
    """

    points_mm: Array
    shell: Shell
    edge_mm: float


class Skull:
    """The cavity and the bone of one head."""

    def __init__(self, head: HeadParameters) -> None:
        self.head = head
        self.details = Details(head) if head.detailed else None
        self.shape = PlaneWaves(head.seed + 1, wavelength_mm=120.0)
        self.thickness = PlaneWaves(head.seed + 2, wavelength_mm=65.0)
        self.trabeculae = NoiseField(head.seed + 3, wavelength_mm=6.0, nodes=48, nodes_per_wavelength=4.0)

    def cavity(self, points_mm: Array) -> Array:
        """Return the distance to the inner table in mm, negative inside the cranial cavity.

        Args:
            points_mm: (3, N) in the head's frame.
        """
        head = self.head
        distance = self._vault(points_mm)
        low = np.flatnonzero((points_mm[2] < 5.0) & (distance < 40.0))
        if low.size:
            template = points_mm[:, low] / np.array(head.scale, np.float32)[:, None]
            below = below_floor(template) * np.float32(head.scale[2])
            inside = smooth_max(distance[low], below, 6.0)
            distance[low] = smooth_min(inside, capsule(template, *CANAL_MM, 14.0, 10.0), 5.0)
        return distance

    def _vault(self, points_mm: Array) -> Array:
        """Return the distance to the vault: a superellipsoid, egg-shaped, a little irregular."""
        head = self.head
        radii = np.array(VAULT_RADII_MM, np.float32) * np.array(head.scale, np.float32)
        center = np.array(VAULT_CENTER_MM, np.float32) * np.array(head.scale, np.float32)
        x, y, z = (points_mm - center[:, None]) / radii[:, None]
        taper = 1.0 - np.float32(head.taper) * np.clip(y, -1.0, 1.0) + np.float32(head.skew) * x * y
        x = np.abs(x) / taper
        y, z = np.abs(y), np.abs(z)
        # The power 1.25, by square roots: a general power would take as long as all the rest.
        x_slope, y_slope, z_slope = (a * np.sqrt(np.sqrt(a)) for a in (x, y, z))
        level = np.maximum(x * x_slope + y * y_slope + z * z_slope, np.float32(1e-4))
        rho = level ** np.float32(1.0 / VAULT_EXPONENT)
        gradient = np.sqrt((x_slope / radii[0]) ** 2 + (y_slope / radii[1]) ** 2 + (z_slope / radii[2]) ** 2)
        gradient *= rho / level
        irregular = self.shape.at(points_mm) * np.float32(head.irregularity_mm)
        distance: Array = (rho - np.float32(1.0)) / np.maximum(gradient, np.float32(1e-3)) - irregular
        return distance

    def shell(self, points_mm: Array, outside_mm: Array) -> Shell:
        """Return where points lie in bone and scalp; `outside_mm` is their `cavity` distance."""
        head = self.head
        template = points_mm / np.array(head.scale, np.float32)[:, None]
        x, y, z = template
        low = smooth_step(-z, 12.0, 40.0)
        temporal = smooth_step(np.abs(x), 40.0, 62.0) * smooth_step(45.0 - np.abs(y + 8.0), 0.0, 40.0) * (1.0 - low)
        occipital = (
            smooth_step(-y, 70.0, 105.0) * smooth_step(26.0 - np.abs(x), 0.0, 26.0) * smooth_step(20.0 - z, 0.0, 25.0)
        )
        relative = 1.0 + np.float32(0.12) * self.thickness.at(points_mm) - np.float32(0.4) * temporal
        relative += np.float32(0.7) * occipital
        roof = smooth_step(y, 18.0, 30.0) * low * np.float32(0.5)
        bone = np.maximum(np.float32(head.skull_mm) * relative * (1.0 - roof), np.float32(2.0))
        ring = smooth_step(5.0 - np.abs(np.mod(z + 86.0, 17.0) - 8.5), 0.0, 3.0)
        bone = bone + (np.float32(9.0) * ring - bone) * smooth_step(-z, 68.0, 76.0)
        brow = np.maximum(1.0 - (x / 34.0) ** 2 - ((z + 14.0) / 26.0) ** 2, 0.0) * smooth_step(y, 40.0, 55.0)
        bone += np.float32(5.5 * head.sinus_scale) * brow
        muscle = smooth_step(np.abs(x), 35.0, 55.0) * smooth_step(40.0 - np.abs(y - 15.0), 0.0, 30.0)
        muscle *= smooth_step(40.0 - z, 0.0, 60.0) * 8.0
        nape = smooth_step(-y, 50.0, 100.0) * smooth_step(-z, 0.0, 60.0) * 16.0
        scalp = np.float32(head.scalp_mm) + muscle + nape
        skin = outside_mm - bone - scalp
        # Below the vault only the neck and the face are left, not a shell around the floor of the cavity.
        skin = np.maximum(skin, np.float32(-30.0) - z)
        return Shell(outside_mm, bone, skin)

    def paint(self, hu: Array, points_mm: Array, shell: Shell, edge_mm: float) -> None:
        """Lay the bone into `hu`: compact tables with diploe between, where the bone is thick enough for it.

        The bone is continued into the cavity, whose contents are laid over it with the edge between them.
        """
        grain = self.trabeculae.at(points_mm)
        table = np.minimum(np.float32(0.32) * shell.bone_mm, np.float32(2.2))
        diploe = np.float32(DIPLOE_HU) + np.float32(60.0) * grain
        if self.details is not None:
            template = points_mm / np.array(self.head.scale, np.float32)[:, None]
            table = np.maximum(table + self.details.tables(template), np.float32(0.5))
            diploe = np.float32(DIPLOE_HU) + self.details.spongy(template, grain)
        bone = share_inside(shell.outside_mm - shell.bone_mm, edge_mm)
        spongy = share_between(shell.outside_mm, table, shell.bone_mm - table, edge_mm)
        spongy *= smooth_step(shell.bone_mm, 2.5, 4.5)
        inside = COMPACT_HU + np.float32(60.0) * grain
        if self.details is not None:
            inside += self.details.compact(template)
        inside += spongy * (diploe - inside)
        if self.details is not None:
            mix(inside, SUTURE_HU, self.details.sutures(template, edge_mm))
        mix(hu, inside, bone)
        front = np.flatnonzero((points_mm[1] > 40.0) & (points_mm[2] < 30.0))
        template = points_mm[:, front] / np.array(self.head.scale, np.float32)[:, None]
        sinus = self.frontal_sinus(template) * smooth_step(np.abs(template[0] - 2.0), 0.6, 1.6)
        wall = 2.0
        air = share_between(shell.outside_mm[front], wall, shell.bone_mm[front] - wall, edge_mm)
        part = hu[front]
        mix(part, AIR_HU, air * smooth_step(sinus, 0.35, 0.6))
        hu[front] = part

    def frontal_sinus(self, template_mm: Array) -> Array:
        """Return where the frontal bone is hollow, (N,) from 0 to 1: two lobes above the nose."""
        size = np.float32(self.head.sinus_scale)
        x, y, z = template_mm
        lobes = ((np.abs(x) - 9.0 * size) / (10.0 * size)) ** 2 + ((z + 13.0) / (12.0 * size)) ** 2
        hollow: Array = np.sqrt(np.maximum(1.0 - lobes, np.float32(0.0))) * smooth_step(y, 40.0, 55.0)
        return hollow


def paint_scalp(hu: Array, depth_mm: Array, bone_gap_mm: Array, marbling: Array, edge_mm: float) -> None:
    """Lay skin, fat and muscle into `hu` (air so far).

    Args:
        hu: (N,) painted in place.
        depth_mm: (N,) depth under the skin, positive inside.
        bone_gap_mm: (N,) distance to the skull beneath.
        marbling: (N,) noise, standard deviation 1: its zero surfaces are sheets of fat between muscles.
        edge_mm: width of a voxel.
    """
    inside = share_inside(-depth_mm, edge_mm)
    muscle = smooth_step(depth_mm + 2.0 * marbling, 4.0, 8.0) * smooth_step(np.abs(marbling), 0.04, 0.16)
    muscle *= smooth_step(bone_gap_mm, -1.0, 1.0)
    tissue = FAT_HU + (MUSCLE_HU - FAT_HU) * muscle
    mix(tissue, SKIN_HU, share_inside(depth_mm - np.float32(2.0), edge_mm))
    mix(hu, tissue, inside)
