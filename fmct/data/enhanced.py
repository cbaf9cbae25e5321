"""Multi-frame CT: one header for each frame, its place and meaning out of the functional groups (PS3.3 C.7.6.16).

An Enhanced CT file holds a whole series. What a single-frame file says at its top level stands here in sequences: once
in the shared groups for what all frames have in common, and for each frame in its own. Legacy Converted files put what
has no group of its own into "unassigned converted attributes".
"""

from __future__ import annotations

from dataclasses import replace

from pydicom.dataset import Dataset

from fmct.data.elements import Elements, items, number, numbers, text
from fmct.data.privacy import uid_hash
from fmct.data.slice_header import SliceHeader

UNASSIGNED = ("UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence")


class FunctionalGroups:
    """The functional groups of a data set.

    Attributes:
        frames: each frame's own groups; none in single-frame files and in multi-frame ones without groups.
    """

    def __init__(self, dataset: Elements) -> None:
        self.shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
        self.frames = items(dataset, "PerFrameFunctionalGroupsSequence")

    def __bool__(self) -> bool:
        return bool(self.shared or self.frames)

    def of(self, frame: int, group: str) -> list[Dataset]:
        """Return the items of a group, the frame's own before the shared ones."""
        for holder in [*self.frames[frame : frame + 1], *self.shared]:
            found = items(holder, group)
            if found:
                return found
        return []

    def first(self, frame: int, group: str) -> Dataset:
        """Return the first item of a group, an empty one where there is none."""
        return next(iter(self.of(frame, group)), Dataset())

    def said(self, frame: int, group: str, keyword: str) -> Dataset:
        """Return the item that holds an element: the group's, or among the unassigned ones; else an empty one."""
        for name in (group, *UNASSIGNED):
            item = self.first(frame, name)
            if text(item, keyword):
                return item
        return Dataset()


def frame_headers(file_header: SliceHeader, dataset: Elements, frames: int, sop_uid: str) -> list[SliceHeader]:
    """Return a header for each frame of a multi-frame file, or one without geometry where no frame has a place.

    Args:
        file_header: what the top level says.
        dataset: with the functional groups.
        frames: how many the header counts.
        sop_uid: in the clear; frames are told apart by it and their number.

    Raises:
        ValueError: when there are groups for another number of frames.
    """
    groups = FunctionalGroups(dataset)
    nowhere = replace(file_header, pixel_spacing_mm=(), position_lps_mm=(), orientation_lps=())
    if not groups:
        return [nowhere]
    if groups.frames and len(groups.frames) != frames:
        raise ValueError(f"{frames} frames, but functional groups for {len(groups.frames)}")
    given = file_header.contrast or bool(items(dataset, "ContrastBolusAgentSequence"))
    headers = [frame_header(file_header, groups, frame, given) for frame in range(frames)]
    if not any(header.position_lps_mm for header in headers):
        return [nowhere]
    if frames == 1:
        return headers
    return [
        replace(header, frame=frame, sop_id=uid_hash(f"{sop_uid} {frame}") if sop_uid else "")
        for frame, header in enumerate(headers)
    ]


def frame_header(file_header: SliceHeader, groups: FunctionalGroups, frame: int, contrast_given: bool) -> SliceHeader:
    """Return the header of one frame."""
    kind = text(groups.first(frame, "CTImageFrameTypeSequence"), "FrameType").upper()
    kvp = numbers(groups.said(frame, "CTXRayDetailsSequence", "KVP"), "KVP")
    kernel = groups.said(frame, "CTReconstructionSequence", "ConvolutionKernel")
    return replace(
        file_header,
        image_type=tuple(kind.split("\\")) if kind else file_header.image_type,
        pixel_spacing_mm=numbers(groups.first(frame, "PixelMeasuresSequence"), "PixelSpacing"),
        position_lps_mm=numbers(groups.first(frame, "PlanePositionSequence"), "ImagePositionPatient"),
        orientation_lps=numbers(groups.first(frame, "PlaneOrientationSequence"), "ImageOrientationPatient"),
        kernel=text(kernel, "ConvolutionKernel") or file_header.kernel,
        kvp=kvp[0] if kvp else file_header.kvp,
        contrast=in_contrast(groups.of(frame, "ContrastBolusUsageSequence"), contrast_given),
    )


def in_contrast(usage: list[Dataset], given: bool) -> bool:
    """Tell whether a frame was taken with contrast: as its usage says, else as the file says of all frames."""
    if not usage:
        return given
    keywords = ("ContrastBolusAgentAdministered", "ContrastBolusAgentDetected")
    return any("YES" in {text(item, keyword).upper() for keyword in keywords} for item in usage)


def rescale(dataset: Elements, groups: FunctionalGroups, frame: int) -> tuple[float, float]:
    """Return slope and intercept of a frame: its own, else those of all frames, else of the file, else 1 and 0.

    Raises:
        ValueError: when one of them isn't a number.
    """
    own = groups.first(frame, "PixelValueTransformationSequence")
    source = own if text(own, "RescaleSlope") or text(own, "RescaleIntercept") else dataset
    return number(source, "RescaleSlope", 1.0), number(source, "RescaleIntercept", 0.0)
