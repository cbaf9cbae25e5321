"""The other processes of a run: how far each has come, so that one that died or hangs can be told from the others."""

from __future__ import annotations

import re
import time
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch.distributed.distributed_c10d import _get_default_store

from fmct.callbacks.children import how_children_ended, watch_children
from fmct.console.errors import FmctError

PLACE, REPORT = "fmct/place/{}", "fmct/report/{}"
OF_CONNECTION = re.compile(r"gloo|nccl|Connection (closed|reset)|Broken pipe", re.IGNORECASE)
SECONDS_TO_REPORT = 2.0


class Places(L.Callback):
    """Each process notes its step in the store that connects them, which takes a tenth of a millisecond."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Watch the processes that this one has started."""
        watch_children(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the step."""
        if trainer.world_size > 1:
            _get_default_store().set(PLACE.format(trainer.global_rank), str(trainer.global_step))


def explained(error: RuntimeError, trainer: L.Trainer, timeout_s: int) -> FmctError | None:
    """Return what an error of the connection means: which process is gone or stands still; None: it means other things.

    Args:
        error: any.
        trainer: of the run.
        timeout_s: how long processes wait for one another.
    """
    if not dist.is_available() or not (isinstance(error, dist.DistError) or OF_CONNECTION.search(str(error))):
        return None
    if not dist.is_initialized():
        return FmctError(
            f"the {trainer.world_size} processes didn't find one another ({str(error).splitlines()[0]})",
            f"trainer.timeout_s {timeout_s}",
            "look at what the others printed; were they started, and can they reach MASTER_ADDR at MASTER_PORT?",
        )
    silent, step = silent_processes()
    who = f"process {', '.join(map(str, silent))}" if silent else "one"
    of = f"{who} of {dist.get_world_size()} processes"
    how = how_children_ended(trainer)
    what = f"{of} ended or hangs" + (f", in step {step}" if step is not None else "") + (f": {how}" if how else "")
    return FmctError(
        what,
        f"process {dist.get_rank()}, which waited at most {timeout_s} s for it (trainer.timeout_s)",
        "look at what that process printed, and whether its machine ran out of memory (dmesg); the same command goes "
        "on from the last checkpoint",
    )


def silent_processes() -> tuple[list[int], int | None]:
    """Return the processes that don't report after an error, and the step that they were in.

    None and nothing where the store that connects them is gone, with process 0 that kept it.
    """
    ranks = range(dist.get_world_size())
    try:
        store = _get_default_store()
        store.set(REPORT.format(dist.get_rank()), "")
        time.sleep(SECONDS_TO_REPORT)
        silent = [rank for rank in ranks if not store.check([REPORT.format(rank)])]
        steps = [int(store.get(PLACE.format(rank))) for rank in silent if store.check([PLACE.format(rank)])]
    except RuntimeError:
        return [], None
    return silent, min(steps, default=None)


def is_child(trainer: L.Trainer) -> bool:
    """Say whether Lightning's first process started this one, and says how the run ended."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return isinstance(environment, LightningEnvironment) and trainer.local_rank > 0
