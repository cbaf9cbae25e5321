"""Scans that can't be read while a run trains: the run stops, or leaves out a stated number of them, each by name."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.distributed as dist

from fmct.console.errors import FmctError
from fmct.console.files import atomic_path

QUARANTINE = "quarantine.csv"
COLUMNS = ["scan_id", "path", "error", "epoch", "step"]
NAMED = 4


@dataclass(frozen=True)
class Unread:
    """A scan that could not be read, in place of its item; it crosses processes, as an error would not.

    Attributes:
        scan_id: its name.
        path: the file.
        error: what is wrong with it.
        fix: what to do about it.
    """

    scan_id: str
    path: str
    error: str
    fix: str

    def as_error(self) -> FmctError:
        """Return the error that names it."""
        return FmctError(f"scan {self.scan_id} can't be read: {self.error}", self.path, self.fix)


def refuse(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of which every scan was read.

    Raises:
        FmctError: naming the first scan that wasn't, and its file.
    """
    unread: list[Unread] = batch.pop("unread")
    if unread:
        raise unread[0].as_error()
    return batch


class Quarantine:
    """Leaves scans that can't be read out of their batches, up to a budget over all processes and the whole run.

    The batch is smaller by the scan: nothing takes its place. It is tried again in later epochs, and counts once.

    Args:
        file: list of the scans, which a resumed run goes on with.
        budget: how many scans may be left out; with 0, nothing is listed, and the first one stops the run.
        least: scans that must be left in a batch on every process; with fewer, the run stops: where a whole batch
            can't be read, it isn't the scans that are bad.
        rank: of this process; the first one writes and speaks.
        device: where processes exchange what they found; None: there is one process. They agree at every batch, so that
            all of them stop, saying why, where one must: they would wait for it otherwise.
    """

    def __init__(self, file: Path, budget: int, least: int, rank: int = 0, device: torch.device | None = None) -> None:
        self.file = file
        self.budget = budget
        self.least = least
        self.rank = rank
        self.device = device
        old = pd.read_csv(file, dtype=str, keep_default_na=False) if file.exists() else pd.DataFrame(columns=COLUMNS)
        self.rows: dict[str, dict[str, Any]] = {str(row["scan_id"]): dict(row) for _, row in old.iterrows()}

    def admit(self, batch: dict[str, Any], epoch: int, step: int) -> dict[str, Any]:
        """Return a batch without the scans that can't be read, which are recorded.

        Args:
            batch: as the loader collates it.
            epoch: the present one.
            step: the optimizer step that the batch is for.

        Raises:
            FmctError: when there are more than the budget allows, or a batch has too few left, naming them.
        """
        unread, left = self._of_all(batch.pop("unread"), len(batch.get("scan_id", [])))
        if unread and not self.budget:
            raise unread[0].as_error()
        new = {one.scan_id: one for one in unread if one.scan_id not in self.rows}
        if new:
            self._record(new.values(), epoch, step)
        if len(self.rows) > self.budget:
            allowed = f"data.max_bad_scans allows {self.budget}"
            raise self._stop(f"{len(self.rows)} scans can't be read, {allowed}", "or raise data.max_bad_scans")
        if unread and left < self.least:
            needed = "a scan" if self.least == 1 else f"{self.least} scans"
            raise self._stop(
                f"a batch has {left} scans left at step {step}, and training needs {needed}",
                "look whether the disk is still there, or raise data.batch_size",
            )
        return batch

    def _of_all(self, unread: list[Unread], left: int) -> tuple[list[Unread], int]:
        """Put together what the processes found: who could not be read, and how many are left where fewest are."""
        if self.device is None:
            return unread, left
        count = torch.tensor([len(unread)], device=self.device)
        dist.all_reduce(count)
        if not count.item():
            return [], left
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, (unread, left))
        return [one for part, _ in found for one in part], min(part for _, part in found)

    def _record(self, new: Iterable[Unread], epoch: int, step: int) -> None:
        for one in new:
            row = {key: value for key, value in asdict(one).items() if key in COLUMNS}
            self.rows[one.scan_id] = row | {"epoch": epoch, "step": step}
        if self.rank == 0:
            with atomic_path(self.file) as temporary:
                pd.DataFrame(list(self.rows.values()), columns=COLUMNS).to_csv(temporary, index=False)
            for one in new:
                place = f"{len(self.rows)} of at most {self.budget}, listed in {self.file}"
                print(f"left out: scan {one.scan_id} can't be read ({one.error}); {place}", file=sys.stderr, flush=True)

    def _stop(self, what: str, otherwise: str) -> FmctError:
        rows = list(self.rows.values())
        named = "; ".join(f"{row['scan_id']} ({row['error']})" for row in rows[:NAMED])
        more = f"; and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        fix = f"delete these volumes and run `fmct preprocess` again: it makes what lacks; {otherwise}"
        return FmctError(f"{what}: {named}{more}", self.file, fix)
