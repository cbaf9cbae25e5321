"""A run's checkpoints: which of them it goes on from, and which are kept.

RUN/checkpoints/stepNNNNNNN.ckpt         the newest ones, whole
RUN/checkpoints/stepNNNNNNN.ckpt.sha256  their checksums
RUN/checkpoints/last.ckpt                a link to the one that the run goes on from
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from fmct.console.errors import FmctError
from fmct.experiment.checkpoint_files import CHECKSUM_SUFFIX, CheckpointFiles, sync_folder, what_is_wrong

LAST_NAME = "last.ckpt"
NAME = re.compile(r"step(\d{7,})\.ckpt")
TEMPORARY = ".step*.ckpt.*"


class CheckpointFolder:
    """The checkpoints of a run, told apart by their steps.

    Args:
        folder: where they are; it may not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / LAST_NAME

    def path_of(self, step: int) -> Path:
        """Return where the checkpoint of a step is."""
        return self.folder / f"step{step:07d}.ckpt"

    def steps(self) -> list[int]:
        """List the steps of which there are checkpoints, the latest first."""
        found = (NAME.fullmatch(path.name) for path in self.folder.glob("step*.ckpt"))
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def publish(self, step: int, keep: int) -> None:
        """Let the run go on from a step from now on, and remove what isn't kept.

        Args:
            step: of a checkpoint that is whole.
            keep: how many of the newest stay, this one among them. Later ones, of a past that the run has gone back
                from, go, and so do the remains of saves that were killed.
        """
        link = self.folder / f".{LAST_NAME}"
        link.unlink(missing_ok=True)
        link.symlink_to(self.path_of(step).name)
        link.replace(self.last)
        sync_folder(self.folder)
        kept = [one for one in self.steps() if one <= step][:keep]
        for old in self.steps():
            if old not in kept:
                CheckpointFiles().remove_checkpoint(self.path_of(old))
        names = {self.path_of(one).name for one in kept}
        for checksum in self.folder.glob(f"step*{CHECKSUM_SUFFIX}"):
            if checksum.name.removesuffix(CHECKSUM_SUFFIX) not in names:
                checksum.unlink()
        for remains in self.folder.glob(TEMPORARY):
            remains.unlink()

    def newest_sound(self, *, aloud: bool) -> Path | None:
        """Return the checkpoint that the run goes on from: `last.ckpt`, or the newest one before it that is sound.

        Args:
            aloud: print which ones are damaged, to stderr.

        Returns:
            None, when the run never came to a checkpoint.

        Raises:
            FmctError: when there are checkpoints, and all are damaged.
        """
        if not self.last.is_symlink() and not self.last.exists():
            return None
        target = self.last.readlink().name if self.last.is_symlink() else LAST_NAME
        match = NAME.fullmatch(target)
        steps = self.steps()
        before = [self.path_of(step) for step in steps if match is None or step < int(match[1])]
        damaged: list[str] = []
        for path in [self.folder / target, *before]:
            wrong = what_is_wrong(path)
            if wrong is None:
                if damaged and aloud:
                    listed = "; ".join(damaged)
                    print(f"damaged: {listed}; the run goes on from {path.name}", file=sys.stderr, flush=True)
                return self.last if path.name == target else path
            damaged.append(f"{path.name}, {wrong}")
        raise FmctError(
            f"no checkpoint of the run is sound: {'; '.join(damaged)}",
            self.folder,
            "restore one with its .sha256 from a backup, or start over with --fresh (the old folder is kept)",
        )

    def bytes_needed(self) -> int:
        """Return how much room one more checkpoint takes, as far as those that are there tell; 0: unknown."""
        return max((self.path_of(step).stat().st_size for step in self.steps()), default=0)
