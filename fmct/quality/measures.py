"""What is judged of each scan: in which units, from what difference on it matters, and what may lie behind it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One figure that every scan of a cache has.

    Attributes:
        name: its column.
        title: what it is called.
        unit: with a leading blank where there is one.
        digits: decimals to show.
        slack: the least spread that counts, in its unit; differences that are small against it are none, even where
            nearly all scans agree to the last digit.
        meaning: how it is measured, one sentence.
        low: what an unusually low value may mean; "" where low is good.
        high: what an unusually high one may mean.
        missing: what it may mean that a scan has none; "" for columns that may be empty.
        scale: what to multiply with to show it, 100 for percent.
    """

    name: str
    title: str
    unit: str
    digits: int
    slack: float
    meaning: str
    low: str
    high: str
    missing: str = ""
    scale: float = 1.0

    def number(self, value: float, digits: int | None = None) -> str:
        """Write a value without its unit; a minus sign is a real one."""
        text = f"{value * self.scale:,.{self.digits if digits is None else digits}f}"
        return text.replace("-", "−") if float(text.replace(",", "")) else text.replace("-", "")

    def text(self, value: float) -> str:
        """Write a value with its unit."""
        return f"{self.number(value)}{self.unit}"


MEASURES = (
    Measure(
        "brain_hu", "Brain", " HU", 0, 1.0,
        "Median within 10 HU of the commonest value from 0 to 80 HU.",
        "wrong rescale, or edema?", "contrast given, or wrong rescale?", "no tissue from 0 to 80 HU: are these HU?",
    ),
    Measure(
        "air_hu", "Air", " HU", 0, 5.0,
        "Median of what lies between the fill and −850 HU; the fill itself doesn't count.",
        "wrong rescale?", "wrong rescale, or little air in view?",
        "no measured air: cut off or clamped by the scanner?",
    ),
    Measure(
        "bone_hu", "Bone", " HU", 0, 60.0,
        "95th percentile of what is above 300 HU.",
        "a child, or a soft kernel?", "metal, or a sharp kernel?", "no bone above 300 HU: is this a head?",
    ),
    Measure(
        "brain_spread_hu", "Spread in brain", " HU", 1, 1.0,
        "Distance between the quartiles of all values from 0 to 80 HU: noise, gray and white matter, CSF.",
        "smoothed, or not a real scan?", "noisy, or mixed with something?",
    ),
    Measure(
        "noise_hu", "Noise", " HU", 1, 0.4,
        "From differences of neighbors in brain, after resampling: to compare scans of this cache only.",
        "smoothed, or not a real scan?", "low dose, a sharp kernel, or motion?", "too little brain to tell?",
    ),
    Measure(
        "head_ml", "Head volume", " mL", 0, 150.0,
        "All that is above −300 HU.",
        "a part is missing, or a child?", "neck or table in view?",
    ),
    Measure(
        "height_mm", "Height", " mm", 0, 6.0,
        "From the lowest to the highest axial plane with 1 cm² of tissue.",
        "base or vertex missing?", "neck in view?", "no head?",
    ),
    Measure("depth_mm", "Front to back", " mm", 0, 7.0, "Extent of what is above −300 HU.",
            "a part is missing, or a child?", "head rest or table in view?", "no head?"),
    Measure("width_mm", "Left to right", " mm", 0, 7.0, "Extent of what is above −300 HU.",
            "a part is missing, or a child?", "head rest, arms or shoulders in view?", "no head?"),
    Measure(
        "top_share", "Tissue in the top plane", " %", 0, 0.06,
        "As a share of the fullest axial plane; a whole vertex tapers off.",
        "", "the vertex is missing?", scale=100.0,
    ),
    Measure(
        "asymmetry", "Asymmetry", " %", 1, 0.015,
        "Mean difference from the mirror image in the brain window, of its width.",
        "", "head turned, a part missing, or a large finding?", scale=100.0,
    ),
    Measure(
        "cropped_mm", "Cropped", " mm", 0, 3.0,
        "How far the head reaches out of the volume, on the side where it is most.",
        "", "the head doesn't fit into the volume?",
    ),
    Measure(
        "metal_share", "Metal", " ‰", 2, 0.0001,
        "Share of the tissue at 2,800 HU or more.",
        "", "an implant, coils, or dental work?", scale=1000.0,
    ),
    Measure(
        "fill_share", "Fill", " %", 0, 0.05,
        "Share of the volume that holds no measurement.",
        "", "little of the head was scanned?", scale=100.0,
    ),
    Measure("source_gap_mm", "Slice gap", " mm", 2, 1.5, "Median distance of the source's slices.",
            "", "thick slices?"),
    Measure("source_gap_max_mm", "Largest gap", " mm", 2, 1.5, "Largest distance of two neighboring slices.",
            "", "slices missing, or thick ones?"),
    Measure("source_pixel_mm", "Pixel size", " mm", 2, 0.08, "Geometric mean of the source's pixel sides.",
            "a small field of view?", "a large field of view?"),
    Measure("source_tilt_deg", "Gantry tilt", "°", 1, 7.0, "From the slices' positions.",
            "", "a steep gantry, or a wrong geometry?"),
)  # fmt: skip
MEASURE = {measure.name: measure for measure in MEASURES}
HISTOGRAMS = (
    "brain_hu", "air_hu", "bone_hu", "noise_hu", "head_ml", "height_mm",
    "source_gap_mm", "source_gap_max_mm", "source_pixel_mm", "source_tilt_deg", "top_share", "asymmetry",
)  # fmt: skip
