"""Tensors into a module: what doesn't fit is an error, or at least said."""

from __future__ import annotations

import warnings
from pathlib import Path

from torch import Tensor, nn

from fmct.console.errors import UsageError


def load_tensors(module: nn.Module, tensors: dict[str, Tensor], where: Path, *, allow_partial: bool = False) -> None:
    """Load tensors into a module, refusing what doesn't fit.

    Raises:
        UsageError: listing missing, unexpected and misshapen tensors; with `allow_partial` they are a warning.
    """
    own = module.state_dict()
    misshapen = [
        f"{k} {tuple(tensors[k].shape)} for {tuple(own[k].shape)}"
        for k in own.keys() & tensors.keys()
        if own[k].shape != tensors[k].shape
    ]
    problems = {
        "missing": sorted(own.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - own.keys()),
        "misshapen": sorted(misshapen),
    }
    listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names)
    if listed and not allow_partial:
        raise UsageError(
            f"the tensors don't fit this architecture ({listed})", where, "use the backbone that config.json describes"
        )
    if listed:
        warnings.warn(f"loaded only in part: {listed}", stacklevel=2)
    fitting = {k: t for k, t in tensors.items() if k in own and own[k].shape == t.shape}
    module.load_state_dict(own | fitting)
