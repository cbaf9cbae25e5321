"""FSDP2: every process keeps a share of each parameter, and gathers a block's when it computes it.

Lightning's `fsdp` is FSDP1, which refuses CPUs; its ModelParallelStrategy leaves to the model what is divided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import default_pg_timeout
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from fmct.console.errors import UsageError
from fmct.experiment.checkpoint_files import load_plainly
from fmct.models.backbones import repeated_blocks


class FullySharded(ModelParallelStrategy):
    """Divides parameters, gradients and optimizer state among all processes.

    Checkpoints are whole, in one file and as without division. (Lightning's own way refuses to load the optimizer's
    state where a parameter has none, such as prototypes that haven't moved yet.)

    Args:
        timeout: how long processes wait for one another.
    """

    def __init__(self, timeout: timedelta = default_pg_timeout) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout)

    def setup_environment(self) -> None:
        """Let all processes share scans and parameters alike."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def data_mesh(self) -> DeviceMesh:
        """The processes among which parameters are divided."""
        return self.device_mesh["data_parallel"]

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Let Lightning hand over the optimizers' state, as it does without division."""
        return True

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Gather an optimizer's state; all processes take part, and the first one's is saved."""
        state = optimizer.state_dict()
        gathered = {
            index: {name: whole(value) for name, value in of_parameter.items()}
            for index, of_parameter in state["state"].items()
        }
        return state | {"state": gathered}

    def load_checkpoint(self, checkpoint_path: _PATH, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, in every process; what isn't this process's share is never in memory as a whole."""
        return load_plainly(self.broadcast(checkpoint_path))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's shares of the whole tensors."""
        assert self.model is not None
        options = StateDictOptions(full_state_dict=True, strict=strict)
        set_model_state_dict(self.model, dict(checkpoint["state_dict"]), options=options)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's shares of the optimizers' state."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            shares = {
                index: {name: share_like(value, parameters[index]) for name, value in of_parameter.items()}
                for index, of_parameter in state["state"].items()
            }
            optimizer.load_state_dict(state | {"state": shares})


def whole(value: Any) -> Any:
    """Gather a tensor that is divided among processes, onto the CPU; anything else stays."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def share_like(value: Any, parameter: Tensor) -> Any:
    """Divide what belongs to a parameter and has its shape as the parameter is divided; anything else stays."""
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    placed = value.to(parameter.device)
    return distribute_tensor(placed, parameter.device_mesh, parameter.placements, src_data_rank=None)


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
