"""An exponential moving average of the weights, which is what is validated and packaged."""

from __future__ import annotations

from functools import partial

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import AveragedModel


def moving_average(decay: float, average: Tensor, current: Tensor, updates: Tensor) -> Tensor:
    """Move an average towards the current value, fast at first: where training began counts no more than a step does.

    The factor is the lesser of `decay` and (1 + t) / (10 + t) after t updates, as in TensorFlow's
    ExponentialMovingAverage.

    Args:
        decay: share of the average that stays, in the long run.
        average: of the values so far.
        current: value, of the same shape.
        updates: () int, averages made before.

    Returns:
        The new average.
    """
    factor = ((1.0 + updates) / (10.0 + updates)).clamp(max=decay).to(average.dtype)
    return current.lerp(average, factor)


class Averaging(WeightAveraging):
    """Averages parameters after every optimizer step; buffers, such as batch norms' statistics, are the current ones.

    Lightning's callback, which swaps averages in for validations, and puts them into checkpoints beside the weights
    that training goes on from. Its copy of the task is never called, and neither compiled nor divided.

    Args:
        decay: see `moving_average`.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, avg_fn=partial(moving_average, decay))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the task before it learns."""
        if stage == "fit":
            self._average_model = AveragedModel(pl_module, pl_module.device, use_buffers=False, **self._kwargs)

    def weights(self) -> dict[str, Tensor]:
        """Return the averages by the names that they have in the task."""
        assert self._average_model is not None
        return dict(self._average_model.module.state_dict())


def weights_of(trainer: L.Trainer) -> dict[str, Tensor]:
    """Return what a run has arrived at, none of it divided among processes: the averages where there are any."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    averaging = next((callback for callback in callbacks if isinstance(callback, Averaging)), None)
    return averaging.weights() if averaging else trainer.strategy.lightning_module_state_dict()
