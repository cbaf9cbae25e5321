"""Who speaks for a run of several processes: an error that all of them meet, or suffer from, is printed once."""

from __future__ import annotations

import os
import time

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

KEY = "fmct/errors"
SECONDS_TO_SPEAK = 5.0
"""Whoever started the processes may end all when one has ended: a silent one leaves the first time to speak."""


def first_to_speak() -> bool:
    """Tell whether this process is the one to say why the run ends; to be asked once, by a process that would.

    Connected processes count in the store that connected them: the first to fail speaks, for what the others meet is
    the same or follows from it. The store is kept by process 0, so where it is gone, that one has spoken or was killed.
    Processes that aren't connected yet are all alike where torchrun or SLURM started them side by side, and the first
    on each machine speaks; one that Lightning started comes after process 0 and speaks for itself.
    """
    if dist.is_available() and dist.is_initialized():
        try:
            return int(_get_default_store().add(KEY, 1)) == 1
        except RuntimeError:
            return False
    for started_by, place in (("TORCHELASTIC_RUN_ID", "LOCAL_RANK"), ("SLURM_STEP_ID", "SLURM_LOCALID")):
        if started_by in os.environ:
            first = os.environ.get(place, "0") == "0"
            if not first:
                time.sleep(SECONDS_TO_SPEAK)
            return first
    return True
