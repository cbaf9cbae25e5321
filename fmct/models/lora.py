"""Low-rank adaptation of a backbone (Hu et al. 2021, arXiv 2106.09685), by the library `peft`.

A linear layer W keeps its weights and gets a learned product beside it: W + B A · alpha / rank, B zero at first.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from fmct.console.errors import UsageError
from fmct.experiment.config import Config
from fmct.models.backbones import Backbone

FACTORS = "lora_"
BASE = ".base_layer."


class LoRAConfig(Config):
    """Which layers are adapted, and how much they may change."""

    rank: int = Field(8, gt=0, description="of the change of each layer")
    alpha: int = Field(16, gt=0, description="the change is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="of what goes into the change, in training")
    targets: tuple[str, ...] = Field(
        ("qkv", "proj"), min_length=1, description="last names of the layers: qkv, proj, up and down in a vit3d"
    )


def add_lora(backbone: Backbone, config: LoRAConfig) -> None:
    """Put low-rank factors beside a backbone's layers, in place; nothing else of it is trained any more.

    Raises:
        UsageError: when `peft` isn't installed or the backbone has no layers of these names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UsageError(
            f"low-rank adaptation needs the library peft ({error})",
            "task.mode lora",
            "pip install -c constraints.txt 'fmct[peft]'",
        ) from error
    layers = [name for name, part in backbone.named_modules() if isinstance(part, nn.Linear | nn.Conv3d)]
    known = sorted({name.rpartition(".")[2] for name in layers})
    unknown = [target for target in config.targets if target not in known]
    if unknown:
        raise UsageError(
            f"the backbone {backbone.config.kind} has no layer called {', '.join(unknown)}",
            "task.lora.targets",
            f"choose among {', '.join(known)}",
        )
    backbone.requires_grad_(False)
    chosen = [name for name in layers if name.rpartition(".")[2] in config.targets]
    inject_adapter_in_model(
        LoraConfig(r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=chosen), backbone
    )


def train_factors(backbone: nn.Module, training: bool) -> None:
    """Switch what was put beside the layers; the backbone itself works as in evaluation."""
    backbone.eval()
    for name, part in backbone.named_modules():
        if f".{FACTORS}" in name:
            part.train(training)


def merged(backbone: Backbone, config: LoRAConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add learned factors to the layers beside which they stand.

    Args:
        backbone: of the same architecture, without factors; it is used up.
        config: what the factors were made with.
        tensors: of the adapted backbone, by name.

    Returns:
        Tensors of a plain backbone that computes the same.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    add_lora(backbone, config)
    backbone.load_state_dict(tensors)
    for part in backbone.modules():
        if isinstance(part, BaseTunerLayer):
            part.merge()
    return {name.replace(BASE, "."): t for name, t in backbone.state_dict().items() if f".{FACTORS}" not in name}
