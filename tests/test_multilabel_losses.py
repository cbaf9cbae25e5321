"""Losses of labels against NumPy: unknown ones, shares of readers, smoothing, focus."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fmct.losses.multilabel import BCEConfig, FocalConfig, multilabel_loss

NAN = float("nan")
LOGITS = [[0.3, -0.2, 2.0], [1.0, 2.0, -1.5]]
TARGET = [[1.0, NAN, 0.25], [0.0, NAN, 1.0]]


def loss(config: BCEConfig | FocalConfig, weight: float = 1.0, smooth: bool = False) -> float:
    logits, target = torch.tensor(LOGITS), torch.tensor(TARGET)
    return multilabel_loss(config, logits, target, torch.full((3,), weight), smooth=smooth).item()


def by_hand(gamma: float, alpha: float | None, weight: float = 1.0, smoothing: float = 0.0) -> float:
    """Lin et al. 2017, eq. 5, scan by scan and label by label; a share of readers is so much of a positive."""
    total, count = 0.0, 0
    for logits, targets in zip(LOGITS, TARGET, strict=True):
        for logit, target in zip(logits, targets, strict=True):
            if target != target:
                continue
            p, y = 1 / (1 + np.exp(-logit)), target * (1 - smoothing) + smoothing / 2
            of_positive = -((1 - p) ** gamma) * np.log(p) * weight * (1 if alpha is None else alpha)
            of_negative = -(p**gamma) * np.log(1 - p) * (1 if alpha is None else 1 - alpha)
            total, count = total + y * of_positive + (1 - y) * of_negative, count + 1
    return total / count


@pytest.mark.parametrize("weight", [1.0, 3.5])
def test_cross_entropy_over_known_labels(weight: float) -> None:
    assert loss(BCEConfig(), weight) == pytest.approx(by_hand(0, None, weight), rel=1e-5)


@pytest.mark.parametrize(("gamma", "alpha"), [(0.0, None), (2.0, None), (2.0, 0.25), (0.5, 0.9)])
def test_focal_loss_is_equation_5(gamma: float, alpha: float | None) -> None:
    config = FocalConfig(gamma=gamma, alpha=alpha)
    assert loss(config, 2.0) == pytest.approx(by_hand(gamma, alpha, 2.0), rel=1e-5)


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    assert loss(FocalConfig(gamma=0), 3.0) == pytest.approx(loss(BCEConfig(), 3.0), rel=1e-6)


@pytest.mark.parametrize("config", [BCEConfig(label_smoothing=0.2), FocalConfig(label_smoothing=0.2)])
def test_targets_are_smoothed_where_that_is_asked_for(config: BCEConfig | FocalConfig) -> None:
    gamma = config.gamma if isinstance(config, FocalConfig) else 0
    assert loss(config, smooth=True) == pytest.approx(by_hand(gamma, None, smoothing=0.2), rel=1e-5)
    assert loss(config, smooth=False) == pytest.approx(by_hand(gamma, None), rel=1e-5)


@pytest.mark.parametrize("config", [BCEConfig(label_smoothing=0.1), FocalConfig(gamma=0.5)])
def test_unknown_labels_weigh_nothing_and_gradients_are_finite(config: BCEConfig | FocalConfig) -> None:
    logits = torch.tensor([[0.3, -0.2], [90.0, -200.0]], requires_grad=True)
    target = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    multilabel_loss(config, logits, target, torch.ones(2), smooth=True).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 1] == 0
    assert (logits.grad.flatten()[[0, 2, 3]] != 0).all()
    nothing = torch.full((2, 2), NAN)
    assert multilabel_loss(config, logits, nothing, torch.ones(2), smooth=True).item() == 0
