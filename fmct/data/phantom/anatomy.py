"""The whole head as one continuous function of place: HU anywhere, at any sharpness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fmct.data.phantom.brain import Brain, BrainPoints
from fmct.data.phantom.face import Face
from fmct.data.phantom.findings import Finding, altered
from fmct.data.phantom.fluid import Fluid
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.shapes import Array, Indices
from fmct.data.phantom.skull import AIR_HU, OuterPoints, Skull, paint_scalp

FACE_BELOW_MM = -2.0  # height under which the bones and hollows of the face lie
FACE_REACH_MM = 30.0  # height up to which the face's outline reaches
FORAMEN_MM = -60.0  # height of the foramen magnum
SCALP_REACH_MM = 48.0  # above that height there is only air farther from the cavity than this


class Anatomy:
    """One head with its findings.

    Args:
        head: whose head.
        findings: what is wrong with it; painted in this order.
    """

    def __init__(self, head: HeadParameters, findings: Sequence[Finding] = ()) -> None:
        self.findings = tuple(findings)
        self.head = head = altered(head, findings)
        self.scale = np.array(head.scale, np.float32)[:, None]
        self.skull, self.face, self.brain = Skull(head), Face(head), Brain(head)
        self.outer_findings = [f for f in self.findings if type(f).paint_outside is not Finding.paint_outside]

    def hu(self, points_mm: Array, edge_mm: float) -> tuple[Array, dict[str, Array]]:
        """Return what a detector would see at some points.

        Args:
            points_mm: (3, N) in the head's frame, see `skull`.
            edge_mm: width over which edges are averaged: the voxel of the grid that samples.

        Returns:
            (N,) Hounsfield units, float32; and for each finding with a body its share of each voxel, (N,) in [0, 1].
        """
        hu = np.full(points_mm.shape[1], AIR_HU, np.float32)
        outside = self.skull.cavity(points_mm)
        for finding in self.outer_findings:
            pressed = finding.press(self.head, points_mm)
            if pressed is not None:
                outside = outside + pressed
        solid = np.flatnonzero((outside > -edge_mm) & ((outside < SCALP_REACH_MM) | (points_mm[2] < FACE_REACH_MM)))
        lesions = self._paint_outside(hu, points_mm, outside, solid, edge_mm)
        cavity = np.flatnonzero(outside < 0.5 * edge_mm)
        if cavity.size:
            for name, share in self._paint_cavity(hu, points_mm, outside, cavity, edge_mm).items():
                lesions[name] = np.maximum(lesions[name], share) if name in lesions else share
        return hu, lesions

    def parts(self, points_mm: Array) -> dict[str, Array]:
        """Return where parts of the head are, for tests that ask what became of them.

        Args:
            points_mm: (3, N) in the head's frame.

        Returns:
            (N,) distances in mm, negative inside: `intracranial` (down to the foramen magnum), `nose`, `lips`, `lids`,
            `chin` and `ears`. Those of the face reach into it, to where they are blended with it.
        """
        template, features = points_mm / self.scale, self.face.features
        return {
            "intracranial": np.maximum(self.skull.cavity(points_mm), np.float32(FORAMEN_MM) - template[2]),
            "nose": features.nose(template),
            "lips": features.lips(template),
            "lids": features.lids(template),
            "chin": features.chin(template),
            "ears": features.ears(template),
        }

    def _paint_outside(self, hu: Array, points: Array, outside: Array, solid: Indices, edge: float) -> dict[str, Array]:
        """Paint scalp, face and bone at the indices `solid`; return the shares of findings there."""
        points, outside = points[:, solid], outside[solid]
        template = points / self.scale
        shell = self.skull.shell(points, outside)
        for finding in self.outer_findings:
            finding.reshape(self.head, points, shell)
        skin = shell.skin_mm
        low = np.flatnonzero(template[2] < FACE_REACH_MM)
        if low.size:
            skin[low] = self.face.skin(template[:, low], skin[low])
        inside = np.flatnonzero(skin < edge)
        part = np.full(inside.size, AIR_HU, np.float32)
        template = template[:, inside]
        gap = (outside - shell.bone_mm)[inside]
        soft = np.flatnonzero(gap > -edge)
        painted = part[soft]
        paint_scalp(painted, -skin[inside[soft]], gap[soft], self.face.marbling.at(template[:, soft]), edge)
        part[soft] = painted
        face = np.flatnonzero(template[2] < FACE_BELOW_MM)
        if face.size:
            painted = part[face]
            self.face.paint(painted, template[:, face], edge)
            part[face] = painted
        bone = np.flatnonzero(gap < edge)
        painted = part[bone]
        self.skull.paint(painted, points[:, inside[bone]], shell.at(inside[bone]), edge)
        part[bone] = painted
        lesions: dict[str, Array] = {}
        for finding in self.outer_findings:
            share = finding.paint_outside(self.head, part, OuterPoints(points[:, inside], shell.at(inside), edge))
            if share is not None:
                lesions[finding.name] = np.zeros(hu.size, np.float32)
                lesions[finding.name][solid[inside]] = share
        hu[solid[inside]] = part
        return lesions

    def _paint_cavity(self, hu: Array, points: Array, outside: Array, cavity: Indices, edge: float) -> dict[str, Array]:
        """Paint the contents of the skull at the indices `cavity`; return the findings' shares."""
        inside = points[:, cavity]
        depth = -outside[cavity]
        tissue, tissue_depth = inside, depth
        for finding in self.findings:
            moved = finding.displacement(self.head, inside, depth)
            if moved is not None:
                tissue = tissue - moved
        if tissue is not inside:
            pushed = np.flatnonzero((tissue != inside).any(0))
            tissue_depth = depth.copy()
            tissue_depth[pushed] = -self.skull.cavity(np.ascontiguousarray(tissue[:, pushed]))
        fluid = Fluid.nowhere(cavity.size) if any(finding.in_fluid for finding in self.findings) else None
        at = BrainPoints(inside, depth, tissue / self.scale, tissue_depth, edge, fluid)
        part = np.empty(cavity.size, np.float32)
        self.brain.paint(part, at)
        lesions: dict[str, Array] = {}
        for finding in self.findings:
            share = finding.paint(self.head, part, at)
            if share is not None:
                body = lesions.setdefault(finding.name, np.zeros(outside.size, np.float32))
                body[cavity] = np.maximum(body[cavity], share)
        bone = hu[cavity]
        hu[cavity] = bone + np.clip(depth / edge + 0.5, 0.0, 1.0) * (part - bone)
        return lesions
