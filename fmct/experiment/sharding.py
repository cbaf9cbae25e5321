"""FSDP2: every process keeps a share of each parameter, and gathers a block's when it computes it.

Lightning's `fsdp` is FSDP1, which refuses CPUs; its ModelParallelStrategy leaves to the model what is divided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from fmct.console.errors import UsageError
from fmct.models.backbones import repeated_blocks


class FullySharded(ModelParallelStrategy):
    """Divides parameters, gradients and optimizer state among all processes; checkpoints are whole, in one file."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Let all processes share scans and parameters alike."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def data_mesh(self) -> DeviceMesh:
        """The processes among which parameters are divided."""
        return self.device_mesh["data_parallel"]


def shard(task: nn.Module, mesh: DeviceMesh) -> None:
    """Divide a task's parameters among the processes of a mesh, in place; once is enough.

    Calling a module gathers the parameters that are divided with it, so it has to be called: each block is divided by
    itself, then each part of the task that has parameters of its own, with all that is below it. Besides `forward`,
    methods that a part names in `called_methods` gather them too.

    Args:
        task: gets its parameters replaced by DTensors.
        mesh: of one dimension.

    Raises:
        UsageError: when the task has a parameter outside of its parts: tasks themselves are never called.
    """
    if any(isinstance(parameter, DTensor) for parameter in task.parameters()):
        return
    outside = [name for name, _ in task.named_parameters(recurse=False)]
    if outside:
        raise UsageError(
            f"the task holds {', '.join(outside)} itself, and only parts that are called can be divided",
            "trainer.strategy fsdp2",
            "use strategy ddp, or move the parameter into the module that uses it",
        )
    for module in [*repeated_blocks(task), *parts_with_parameters(task)]:
        # resharded after forward even where there is no backward pass: the teacher follows the student's shares
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        for name in getattr(module, "called_methods", ()):
            register_fsdp_forward_method(module, name)


def parts_with_parameters(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost parts of a module that have parameters of their own, not only in parts of theirs."""
    for child in module.children():
        if any(True for _ in child.parameters(recurse=False)):
            yield child
        else:
            yield from parts_with_parameters(child)


def local_shards(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return what this process holds of each parameter: its share, or all of it where nothing is divided.

    Element-wise work on parameters that are divided alike needs neither communication nor DTensor's bookkeeping.
    """
    return [p.to_local() if isinstance(p, DTensor) else p for p in parameters]
