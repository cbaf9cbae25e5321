"""Which changes of the configuration a run can go on with, from the weights and the step that it came to."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from fmct.console.errors import UsageError
from fmct.experiment.checkpoint_files import load_plainly

FREE = ("callbacks.", "trainer.checkpoint_every_", "trainer.checkpoint_keep", "trainer.timeout_s", "data.timeout_s")
"""Keys that have no part in what a run learns: they may change at any time."""
POSSIBLE = (
    *("optimizer.", "task.", "data.cache", "data.max_bad_scans", "trainer.max_", "trainer.clip_norm"),
    *("trainer.precision", "trainer.matmul_precision", "trainer.compile", "trainer.deterministic", "trainer.strategy"),
    *(
        "trainer.accelerator",
        "trainer.validate_every_epochs",
        "trainer.log_every_steps",
        "trainer.pictures_every_steps",
    ),
    *("trainer.tensorboard", "trainer.runs"),
)
"""Keys that a run can go on with when it is told to; the network's tensors must be the same."""
IMPOSSIBLE = ("optimizer.layer_decay", "task.kind", "task.mode", "task.labels", "task.weights", "task.head.kind")
"""Keys among the possible ones by which the run would be another one."""
NAMED = 4


def is_free(change: str) -> bool:
    """Say whether a change, as `differences` writes it, has no part in what a run learns."""
    return change.startswith(FREE)


def key_of(change: str) -> str:
    """Return the key of a change."""
    return change.partition(": ")[0]


def require_possible(changes: list[str], folder: Path) -> None:
    """Check that a run can go on with changes.

    Args:
        changes: as `differences` writes them.
        folder: the run's.

    Raises:
        UsageError: naming those that make another network, other epochs or other random numbers of it.
    """
    refused = [one for one in changes if not one.startswith(POSSIBLE) or key_of(one) in IMPOSSIBLE]
    if refused:
        raise UsageError(
            f"the run can't go on with another {'; '.join(refused[:NAMED])}",
            folder,
            "give the new run another --name, or start over with --fresh (the old folder is kept)",
        )


def require_same_tensors(task: nn.Module, checkpoint: Path) -> None:
    """Check that a network has the tensors of a checkpoint.

    Raises:
        UsageError: naming some that it hasn't, or that have other shapes.
    """
    theirs = {name: tuple(tensor.shape) for name, tensor in load_plainly(checkpoint)["state_dict"].items()}
    ours = {name: tuple(tensor.shape) for name, tensor in task.state_dict().items()}
    wrong = [
        f"{name} {theirs.get(name, 'none')} -> {ours.get(name, 'none')}"
        for name in dict.fromkeys([*theirs, *ours])
        if theirs.get(name) != ours.get(name)
    ]
    if wrong:
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise UsageError(
            f"the run can't go on with another network ({'; '.join(wrong[:NAMED])}{more})",
            checkpoint,
            "give the new run another --name, or start over with --fresh (the old folder is kept)",
        )
