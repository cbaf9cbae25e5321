"""What every task shares: views made on the device, optimizer and schedule by step, packaging.

B scans in a batch. A batch from the loader holds `hu` (B, 1, Z, Y, X) int16, `index` (B,) int64 – the scan's row in the
data set – and lists of B: `scan_id`, the names, and `draws`, which say in what epoch each was drawn and how often
before in the same one. Views that lie on heads add `head_box` (B, 3, 2), where these are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fmct.experiment.compilation import compile_blocks
from fmct.experiment.optim import cosine
from fmct.experiment.sharding import FullySharded, shard
from fmct.models.backbones import Backbone
from fmct.tasks.random_views import RandomViews
from fmct.tasks.setting import Batch as Batch
from fmct.tasks.setting import Setting as Setting


class Task(RandomViews, L.LightningModule):
    """Base of the pretext tasks and the classifier.

    Attributes:
        bad_step: () bool, whether the gradient of the last step was no finite number, so that it was skipped.
        watched_features: (B, D) the encoder's features of the last training step, detached, by which a collapse is
            seen; None where a task watches none.
        prototypes: K, that a self-distilling task chooses among; None: it has none.
    """

    bad_step: Tensor | None = None
    watched_features: Tensor | None = None
    prototypes: int | None = None

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Log as Lightning does, but leave plain numbers off the device: putting one there waits for it, every time.

        What belongs to a step that isn't written anyway is dropped here: Lightning spends half a millisecond on each.
        """
        if not (kwargs.get("on_epoch") or kwargs.get("prog_bar") or self.log_is_written()):
            return
        if isinstance(value, int | float) and not kwargs.get("sync_dist"):
            value = torch.tensor(value, dtype=torch.float32)
        super().log(name, value, *args, **kwargs)

    def log_is_written(self) -> bool:
        """Say whether what is logged now gets into the logs: outside of steps, every n of them, and at the last one."""
        if not self.trainer.training or "epoch" in (self._current_fx_name or ""):
            return True
        step = self.trainer.fit_loop.epoch_loop._batches_that_stepped + 1
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return step % every == 0 or step == self.setting.record["trainer"]["max_steps"]

    # -- what a task defines ------------------------------------------------------------------------------------------

    def make_views(self, batch: Batch, generators: list[np.random.Generator]) -> Batch:
        """Draw and make the training views of a batch, on the device; returns the batch with them."""
        raise TypeError(f"{type(self).__name__} makes no views")

    def whole_view(self, batch: Batch) -> Batch:
        """Make the view that validation sees: `x` (B, C, Z, Y, X) of the whole volume."""
        return batch | {"x": self.setting.input.whole(batch["hu"])}

    def trainable(self) -> Iterable[tuple[nn.Module, float]]:
        """Return the modules that learn, each with a factor on the learning rate."""
        return [(self, 1.0)]

    def validation_metrics(self) -> tuple[str, ...]:
        """Name what every validation logs, by which a run can be judged while it goes on."""
        return ()

    def packaged_backbone(self) -> Backbone:
        """Return the encoder that goes into the weight package."""
        raise TypeError(f"{type(self).__name__} has no backbone")

    # -- what the base does -------------------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Make views for the whole batch at once, where the batch is."""
        if self.trainer.training:
            return self.make_views(batch, self.generators(batch))
        return self.whole_view(batch)

    def generators(self, batch: Batch) -> list[np.random.Generator]:
        """Return one random generator per scan, set by seed, epoch, scan and, where it came before, how often.

        So a scan's views are the same whatever its batch mates, the number of workers or devices, and after a resume.
        """
        seed = self.setting.seed
        return [np.random.default_rng([seed, draw.epoch, draw.row, draw.repeat]) for draw in batch["draws"]]

    def generators_of_scans(self, batch: Batch) -> list[np.random.Generator]:
        """Return one random generator per scan, set by seed and scan alone: validation draws the same every time."""
        return [np.random.default_rng([self.setting.seed, index]) for index in batch["index"].tolist()]

    def configure_model(self) -> None:
        """Compile what is repeated, and divide parameters among processes, where the experiment says so."""
        if self.setting.record["trainer"]["compile"]:
            compile_blocks(self)
        if isinstance(self.trainer.strategy, FullySharded):
            shard(self, self.trainer.strategy.data_mesh)

    def configure_optimizers(self) -> Any:
        """Build AdamW and its schedule over all optimizer steps of the run."""
        config = self.setting.optimizer
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        global_batch = data.config.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        optimizer, scheduler = config.build(self.trainable(), global_batch, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training scans."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        batches: int = data.training_batches(self.trainer.world_size)
        return math.ceil(batches / self.trainer.accumulate_grad_batches)

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the whole run (Lightning's own estimate loses the loader's state on resume)."""
        limits = []
        if self.trainer.max_epochs is not None and self.trainer.max_epochs > 0:
            limits.append(self.trainer.max_epochs * self.steps_per_epoch)
        max_steps = self.setting.record["trainer"]["max_steps"]
        if max_steps is not None:
            limits.append(max_steps)
        return min(limits)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Propagate the loss back; one that is no number makes every gradient so.

        So that the gradient alone tells whether a step can be taken, to all processes alike, once they have averaged
        it. (The factor is 1 otherwise, which changes no bit.)
        """
        told = loss * torch.where(loss.isfinite(), 1.0, torch.nan)
        super().backward(told, *args, **kwargs)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Log the norm of the whole gradient, clip it if asked to, and skip the step if it is no finite number.

        Without waiting for the device: a fused optimizer is told by a tensor whether to skip; another one finds no
        gradients. Sets `bad_step`, bool (), for who counts such steps.

        Lightning's own way refuses to clip for fused optimizers under autocast, because of loss scaling; bf16 has none.
        Flat shards (`fsdp`) are the strategy's to clip, and steps aren't skipped there.
        """
        if isinstance(self.trainer.strategy, FSDPStrategy):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self.log("train/gradient_norm", norm)
        self.bad_step = ~norm.isfinite()
        if gradient_clip_val is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        skip_step_if(optimizer, self.bad_step)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Move weight decay along its schedule, if it has one, and log it."""
        config = self.setting.optimizer
        if config.weight_decay_end is not None:
            decay = cosine(self.trainer.global_step, self.total_steps, config.weight_decay, config.weight_decay_end)
            for group in optimizer.param_groups:
                if group["weight_decay"] != 0:
                    group["weight_decay"] = decay
        self.log("train/weight_decay", max(group["weight_decay"] for group in optimizer.param_groups))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set what is drawn within the network (drop path) by seed, batch and rank alone; log the learning rate.

        So a run that is resumed within an epoch draws as it would have, and ranks draw apart.
        """
        own = np.random.SeedSequence([self.setting.seed, batch["draws"][0].epoch, batch_idx, self.global_rank])
        torch.manual_seed(int(own.generate_state(1)[0]))
        optimizer: Any = self.trainer.optimizers[0]
        self.log("train/lr", max(group["lr"] for group in optimizer.param_groups))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the experiment in the checkpoint, as plain values: anything else breaks safe loading."""
        checkpoint["experiment"] = self.setting.record


def skip_step_if(optimizer: torch.optim.Optimizer, bad: Tensor) -> None:
    """Let the optimizer's next step change nothing, neither weights nor its own state, where `bad` holds.

    Args:
        optimizer: about to step; its gradients are there.
        bad: () bool. Only an optimizer that isn't fused has to wait for its value.
    """
    if all(group.get("fused") for group in optimizer.param_groups):
        optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # as torch.amp.GradScaler tells it
    elif bool(bad):
        optimizer.zero_grad(set_to_none=True)
