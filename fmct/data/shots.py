"""Few-shot subsets: so many patients with a finding and as many without, and nothing else to learn from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pydantic import Field

from fmct.console.errors import UsageError
from fmct.data.fraction import rank_of
from fmct.data.manifest import LABEL_PREFIX
from fmct.experiment.config import Config


class ShotsConfig(Config):
    """Train on k positive and k negative patients of one label, one scan of each: 2 k scans in all."""

    label: str = Field(description="label that decides who is positive, one of those the task learns")
    k: int = Field(gt=0, description="patients of each class; those of a smaller k are among those of a larger one")
    seed: int = Field(0, ge=0, description="decides who is drawn, apart from the run's own seed")

    def choose(self, frame: pd.DataFrame, source: Path) -> pd.DataFrame:
        """Draw the shots, whatever the order of the rows.

        A patient is positive when any scan is, else negative when any is known to be. Patients are taken in the order
        of a hash of the seed and their number, and of each the first such scan that has the patient's class. Other
        labels of these scans come along as they are.

        Args:
            frame: rows of a manifest to draw from.
            source: its file, for messages.

        Returns:
            2 k rows, by scan_id.

        Raises:
            UsageError: when there are fewer than k patients of a class, saying how many.
        """
        known = frame[frame[LABEL_PREFIX + self.label].notna()]
        value = known[LABEL_PREFIX + self.label].astype("int8")
        of_class = value == value.groupby(known["patient_id"]).transform("max")
        known, value = known[of_class], value[of_class]
        ranks = pd.DataFrame(
            {
                "value": value,
                "patient_rank": [rank_of(name, self.seed) for name in known["patient_id"]],
                "scan_rank": [rank_of(name, self.seed) for name in known["scan_id"]],
            }
        ).sort_values(["patient_rank", "scan_rank"])
        first = ranks.drop_duplicates("patient_rank")
        counts = {name: int((first["value"] == code).sum()) for code, name in ((1, "positive"), (0, "negative"))}
        if min(counts.values()) < self.k:
            there = " and ".join(f"{count} {name}" for name, count in counts.items())
            raise UsageError(
                f"data.shots.k is {self.k}, but {self.label} has {there} patients among the training scans",
                source,
                f"use at most {min(counts.values())} shots"
                if min(counts.values())
                else "choose a label with patients of both classes in data.train_splits",
            )
        chosen = first.groupby("value").head(self.k).index
        return frame.loc[chosen].sort_values("scan_id")
