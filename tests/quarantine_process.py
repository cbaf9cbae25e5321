"""One of two processes that meet scans which can't be read; apart, so that it imports no more than it needs."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from fmct.console.errors import FmctError
from fmct.data.quarantine import Quarantine, Unread

BAD = [[], [(1, "x")], [(0, "y"), (1, "y")], [(0, "z")]]
"""For each step, who meets which scan."""


def admit_on_rank(rank: int, folder: str) -> None:
    """Go through the steps with a budget of two; leave behind what this process came to know at each."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    quarantine = Quarantine(Path(folder) / "q.csv", budget=2, least=1, rank=rank, device=torch.device("cpu"))
    told = []
    for step, bad in enumerate(BAD):
        mine = [Unread(name, "v.b2nd", "is missing", "make it") for where, name in bad if where == rank]
        try:
            quarantine.admit({"scan_id": ["a", "b"], "unread": mine}, 0, step)
            told.append(sorted(quarantine.rows))
        except FmctError as error:
            told.append([error.what])
    torch.save(told, f"{folder}/told{rank}.pt")
    dist.destroy_process_group()
