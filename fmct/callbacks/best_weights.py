"""Keeps the weights of the validation at which a metric was best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

from fmct.callbacks.averaging import weights_of
from fmct.callbacks.monitored_metric import higher_is_better, require_logged


class BestWeights(L.Callback):
    """Remembers what is trained as it was at the best validation; of two that are equally good, the earlier one.

    It is part of the run's checkpoint, so that a run that was killed goes on with the weights that belong to its past.

    Args:
        metric: what validations log.

    Attributes:
        value: the best value so far, None before the first.
        step: the optimizer step that it was measured at.
        tensors: what was trained by then – what isn't is the same at all times –, on the CPU.

    Raises:
        UsageError: when the metric's name doesn't tell which way is better.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.sign = 1 if higher_is_better(metric) else -1
        self.value: float | None = None
        self.step = 0
        self.tensors: dict[str, Tensor] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check the metric's name.

        Raises:
            UsageError: when validations won't log it.
        """
        if stage == "fit":
            require_logged(self.metric, "trainer.keep_metric", trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the weights that were validated, if they are better than all before."""
        value = float(trainer.callback_metrics[self.metric])
        if self.value is not None and self.sign * value <= self.sign * self.value:
            return
        self.value, self.step = value, trainer.global_step
        frozen = {name for name, parameter in pl_module.named_parameters() if not parameter.requires_grad}
        weights = weights_of(trainer)  # all processes take part
        self.tensors = {name: torch.clone(t.detach().cpu()) for name, t in weights.items() if name not in frozen}

    def chosen(self, last: Mapping[str, Tensor], last_step: int) -> tuple[dict[str, Tensor], int]:
        """Return the weights to be packaged, and the step that they were reached at.

        Args:
            last: the whole task's weights at the end; they are taken where there was no validation.
            last_step: optimizer steps by then.
        """
        return dict(last) | self.tensors, self.step if self.tensors else last_step

    def state_dict(self) -> dict[str, Any]:
        """Return what belongs into the run's checkpoint."""
        return {"value": self.value, "step": self.step, "tensors": self.tensors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.value, self.step, self.tensors = state_dict["value"], state_dict["step"], state_dict["tensors"]
