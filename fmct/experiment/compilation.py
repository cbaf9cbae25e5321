"""torch.compile, block by block."""

from __future__ import annotations

import os
import shutil

from torch import nn

from fmct.console.errors import UsageError
from fmct.models.backbones import Backbone, repeated_blocks


def compile_blocks(task: nn.Module) -> None:
    """Compile the blocks of a task's backbones and decoders in place; backbones without blocks as a whole.

    Blocks of one width share what is compiled, so that it takes seconds whatever the depth, and as often as there are
    kinds of input: views of one size, then views of any size, each with and without gradients. Names of parameters,
    checkpoints and copies stay as they are.
    """
    whole = [part for part in task.modules() if isinstance(part, Backbone) and not repeated_blocks(part)]
    for module in [*repeated_blocks(task), *whole]:
        module.compile()


def require_compiler() -> None:
    """Look for the compiler that torch.compile calls, on a GPU too.

    Raises:
        UsageError: when there is none.
    """
    names = [os.environ.get("CXX") or "g++", "gcc", "clang"]
    if not any(shutil.which(name) for name in names):
        raise UsageError(
            f"torch.compile needs a C++ compiler, and none of {', '.join(names)} is here",
            "trainer.compile",
            "install g++, name a compiler in $CXX, or set trainer.compile to false",
        )
