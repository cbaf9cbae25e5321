"""Which scans an epoch draws, and in what order: a function of the seed and the epoch alone.

N scans, L labels, D draws of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fmct.experiment.config import Config


@dataclass(frozen=True)
class Order:
    """The order of every epoch.

    Attributes:
        draws: how many scans an epoch draws, D.
        of_epoch: from the number of an epoch to (D,) int64 rows of the data set.
    """

    draws: int
    of_epoch: Callable[[int], NDArray[np.int64]]


class ShuffledSampling(Config):
    """Every scan once per epoch, shuffled anew in each."""

    kind: Literal["shuffled"] = "shuffled"

    def build(self, targets: NDArray[np.float32], labels: Sequence[str], seed: int) -> Order:
        """Return the order over N scans; `targets` (N, L) says how many there are."""
        return Order(len(targets), partial(shuffled, len(targets), seed))


class BalancedSampling(Config):
    """As many positives as negatives of each label, by drawing scans of the rarer class more often.

    A scan's weight is the sum, over its known labels, of 1 / (scans with its value of the label): every label counts
    alike, and so do its two classes. With one label, positives and negatives have equal shares of an epoch. With
    several, the weights add up, and since a scan carries all its labels at once, no label is balanced exactly. An
    unknown label adds nothing, and a scan of which no label is known is never drawn. A share of readers (soft labels)
    counts as so much of a positive.

    An epoch has as many draws as there are scans that can be drawn. A scan that is due w times comes floor(w) or
    ceil(w) times, so that those of the commoner class aren't drawn twice while others are left out.
    """

    kind: Literal["balanced"] = "balanced"
    labels: tuple[str, ...] | None = Field(
        None, min_length=1, description="labels to balance, of those the task learns; null: all of them"
    )

    def build(self, targets: NDArray[np.float32], labels: Sequence[str], seed: int) -> Order:
        """Return the order over N scans.

        Args:
            targets: (N, L) from 0 to 1, NaN where unknown.
            labels: names of the L labels.
            seed: of all epochs.
        """
        columns = [labels.index(name) for name in self.labels or labels]
        weights = class_weights(targets[:, columns])
        return Order(int((weights > 0).sum()), partial(weighted, weights, seed))


SamplingConfig = Annotated[ShuffledSampling | BalancedSampling, Field(discriminator="kind")]


def shuffled(scans: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return (N,) rows in the order of an epoch: `numpy.random.default_rng([seed, epoch]).permutation(N)`."""
    return np.random.default_rng([seed, epoch]).permutation(scans)


def class_weights(targets: NDArray[np.float32]) -> NDArray[np.float64]:
    """Weigh scans so that every label, and each of its two classes, has the same share.

    Args:
        targets: (N, L) from 0 to 1, NaN where unknown.

    Returns:
        (N,) that add up to one for each class of each label that has any scan.
    """
    weights = np.zeros(len(targets))
    for column in targets.astype(np.float64).T:
        positive = np.nan_to_num(column)
        for members in (positive, np.where(np.isnan(column), 0.0, 1.0 - positive)):
            total = members.sum()
            if total > 0:
                weights += members / total
    return weights


def weighted(weights: NDArray[np.float64], seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw rows in proportion to their weights, as evenly as whole numbers allow.

    Systematic sampling over shuffled rows (Madow 1949, Ann. Math. Stat. 20:333): a row that is due w times comes
    floor(w) or ceil(w) times, and w times on average over epochs.

    Args:
        weights: (N,) at least 0, not all 0.
        seed: of all epochs.
        epoch: the epoch.

    Returns:
        (D,) rows, shuffled; D is how many weights aren't 0.
    """
    generator = np.random.default_rng([seed, epoch])
    rows = generator.permutation(np.flatnonzero(weights))
    reached = np.cumsum(weights[rows])
    reached /= reached[-1]
    points = (np.arange(len(rows)) + generator.random()) / len(rows)
    drawn = rows[np.minimum(np.searchsorted(reached, points, side="right"), len(rows) - 1)]
    return generator.permutation(drawn)


def repeats(drawn: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count how often each drawn row came before in the same epoch: (D,) rows -> (D,) counts from 0."""
    by_row = np.argsort(drawn, kind="stable")
    starts = np.flatnonzero(np.diff(drawn[by_row], prepend=-1))
    first = np.repeat(starts, np.diff(starts, append=len(drawn)))
    counts = np.empty_like(drawn)
    counts[by_row] = np.arange(len(drawn)) - first
    return counts
