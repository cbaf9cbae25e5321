"""Keeps a run whole when a loss or gradient is no number: steps are skipped and counted, such weights never saved.

Lightning alone would train on. That the optimizer skips a step is done in `Task.configure_gradient_clipping`.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from fmct.callbacks.logging_steps import log_is_due, step_is_complete, write_scalars
from fmct.console.errors import FmctError

BAD_IN_A_ROW = 3
NAMED = 4
STEPS_BEHIND = 2
"""Steps after which a flag is read that a GPU computes: it is there by then, so that nothing waits for it."""


@dataclass
class Step:
    """A step whose flag isn't read yet: its number, and the scans and the loss of each of its batches."""

    number: int
    batches: list[tuple[list[str], Tensor]]
    bad: Tensor
    copied: torch.cuda.Event | None

    def is_bad(self) -> bool:
        """Read the flag, waiting for it if need be."""
        if self.copied is not None:
            self.copied.synchronize()
        return bool(self.bad)


class NanGuard(L.Callback):
    """Counts skipped steps, names their scans, and stops the run when there are too many.

    A skipped step changes no weight and no state of the optimizer; buffers (the teacher's center, statistics of batch
    norms) are put back to what they were before it. Schedules go on.

    Args:
        max_bad_steps: steps that a run may skip; one more stops it, as do three in a row.
    """

    def __init__(self, max_bad_steps: int) -> None:
        self.max_bad_steps = max_bad_steps
        self.total = 0
        self.in_a_row = 0
        self.last_bad = ("", "")
        self.batches: list[tuple[list[str], Tensor]] = []
        self.names: list[str] = []
        self.unread: deque[Step] = deque()
        self.live: list[Tensor] = []
        self.saved: list[Tensor] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember the buffers."""
        self.live = list(saved_buffers(pl_module).values())
        self.saved = [buffer.clone() for buffer in self.live]

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember whose batch it is."""
        self.names = list(batch["scan_id"])

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Remember the loss of the batch."""
        self.batches.append((self.names, loss.detach()))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """When a step is complete, undo what it did to buffers if it is bad, and count it.

        Raises:
            FmctError: when too many were bad, naming scans.
        """
        if not step_is_complete(trainer, batch_idx):
            return
        batches, self.batches = self.batches, []
        known: Tensor | None = getattr(pl_module, "bad_step", None)
        bad = bad_losses([loss for _, loss in batches]) if known is None else known
        for live, saved in zip(self.live, self.saved, strict=True):
            torch.where(bad, saved, live, out=live)
            saved.copy_(live)
        on_gpu = bad.device.type == "cuda"
        flag = bad.to("cpu", non_blocking=True)
        event = torch.cuda.current_stream().record_event() if on_gpu else None
        self.unread.append(Step(trainer.global_step - 1, batches, flag, event))
        self._read(STEPS_BEHIND if on_gpu else 0)
        self._refuse()
        if log_is_due(trainer, batch_idx):
            write_scalars(trainer, {"train/bad_steps": float(self.total)})

    def _read(self, behind: int) -> None:
        """Read the flags of all but the latest steps, the same on every process."""
        while len(self.unread) > behind:
            step = self.unread.popleft()
            if not step.is_bad():
                self.in_a_row = 0
                continue
            self.total += 1
            self.in_a_row += 1
            self.last_bad = what_was_bad(step)
            if not dist.is_initialized() or dist.get_rank() == 0:
                print("skipped: {} (the batch of {})".format(*self.last_bad), file=sys.stderr, flush=True)

    def _refuse(self) -> None:
        if self.in_a_row < BAD_IN_A_ROW and self.total <= self.max_bad_steps:
            return
        many = f"{self.in_a_row} bad steps in a row" if self.in_a_row >= BAD_IN_A_ROW else f"{self.total} bad steps"
        raise FmctError(
            f"{many}: {self.last_bad[0]}",
            f"the batch of {self.last_bad[1]}",
            "lower optimizer.lr, lengthen the warm-up, set trainer.clip_norm, or look at these scans; the last "
            "checkpoint is whole, and callbacks.max_bad_steps says how many steps may be skipped",
        )

    def state_dict(self) -> dict[str, Any]:
        """Keep the counts in checkpoints."""
        self._read(0)
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.total, self.in_a_row = state_dict["total"], state_dict["in_a_row"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to save weights that hold a value that is no finite number.

        Raises:
            FmctError: naming the first such tensor; nothing is written, and the checkpoint before stays the last.
        """
        self._refuse()
        tensors = {name: t for name, t in named_state(pl_module) if t.is_floating_point() and t.numel()}
        norms = torch.stack([norm.float() for norm in torch._foreach_norm(list(tensors.values()), float("inf"))])
        if trainer.strategy.reduce_boolean_decision(bool(norms.isfinite().all()), all=True):
            return
        wrong = [name for name, norm in zip(tensors, norms.tolist(), strict=True) if not abs(norm) < float("inf")]
        raise FmctError(
            f"the weights hold values that are no finite numbers at step {trainer.global_step}, and aren't saved",
            ", ".join(wrong[:NAMED]) or "another process's part of the weights",
            "lower optimizer.lr or lengthen the warm-up, and run again: the run goes on from the checkpoint before",
        )


def what_was_bad(step: Step) -> tuple[str, str]:
    """Say of a bad step what is no number, and in whose batch, over all processes."""
    parts: list[tuple[list[str], float]] = [(names, float(loss)) for names, loss in step.batches]
    if dist.is_initialized() and dist.get_world_size() > 1:
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, parts)
        parts = [part for of_process in gathered for part in of_process]
    of_loss = [(names, loss) for names, loss in parts if not abs(loss) < float("inf")]
    what = f"the loss is {of_loss[0][1]}" if of_loss else "the gradient is no finite number"
    scans = [name for names, _ in of_loss or parts for name in names]
    return f"{what} at step {step.number}", ", ".join(scans[:NAMED]) + (" ..." if len(scans) > NAMED else "")


def bad_losses(losses: list[Tensor]) -> Tensor:
    """Judge a step by its losses where the gradient's norm isn't known: () bool, the same on every process."""
    count = (~torch.stack(losses).isfinite()).sum()
    if dist.is_initialized():
        dist.all_reduce(count)
    return count > 0


def saved_buffers(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return the buffers that checkpoints hold."""
    kept = module.state_dict(keep_vars=True)
    return {name: local(buffer) for name, buffer in module.named_buffers() if name in kept}


def named_state(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield this process's part of parameters and saved buffers."""
    yield from ((name, local(parameter.detach())) for name, parameter in module.named_parameters())
    yield from saved_buffers(module).items()


def local(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
