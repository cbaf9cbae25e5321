"""The ways of adapting a backbone to labels, and what each of them means for the rest of the task's section."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from fmct.models.heads import AttentiveHeadConfig, LinearHeadConfig
from fmct.models.lora import LoRAConfig

Mode = Literal["finetune", "linear", "attentive", "lora", "scratch", "knn", "logreg"]
Views = Literal["random", "whole"]
FROZEN: frozenset[Mode] = frozenset({"linear", "attentive", "knn", "logreg"})
HEAD_OF: dict[Mode, str] = {"linear": "linear", "attentive": "attentive"}
FINETUNED_LR_FACTOR = 0.01


def with_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Add to a task's section what its mode stands for: kind of head, learning rate of the backbone, LoRA.

    Args:
        given: the section as it was written; it stays as it is.
    """
    mode = given.get("mode", "finetune")
    kinds = {"head": HEAD_OF.get(mode, "linear"), "loss": "bce"}
    filled = {
        key: {"kind": kind} | given.get(key, {})
        for key, kind in kinds.items()
        if isinstance(given.get(key, {}), dict)  # anything else is for validation to complain of
    }
    factor = FINETUNED_LR_FACTOR if mode == "finetune" else 1.0
    lora: dict[str, Any] = {"lora": {}} if mode == "lora" and given.get("lora") is None else {}
    return {"backbone_lr_factor": factor} | given | filled | lora


def check_mode(
    mode: Mode, weights: Path | None, head: LinearHeadConfig | AttentiveHeadConfig, lora: LoRAConfig | None
) -> None:
    """Check that what a task's section says goes together.

    Raises:
        ValueError: naming the keys that contradict each other.
    """
    if mode in {"finetune", "lora"} and weights is None:
        raise ValueError(
            f"mode {mode} starts from pretrained weights, and task.weights is null: name a package or a run there, "
            "or set task.mode to scratch to train random weights"
        )
    if mode == "scratch" and weights is not None:
        raise ValueError(
            f"mode scratch starts from random weights, not {weights}: set task.weights to null or task.mode to finetune"
        )
    if mode in HEAD_OF and head.kind != HEAD_OF[mode]:
        raise ValueError(f"mode {mode} has a head of kind {HEAD_OF[mode]}, not {head.kind}: leave out task.head.kind")
    if lora is not None and mode != "lora":
        raise ValueError(f"task.lora has no effect with mode {mode}: leave it out, or set task.mode to lora")


def check_views(mode: Mode, views: Views) -> None:
    """Check that scans are shown whole to a network only that stays as it is.

    Raises:
        ValueError: naming the keys that contradict each other.
    """
    if views == "whole" and mode not in HEAD_OF:
        raise ValueError(f"task.views whole is for a backbone that stays: task.mode {' or '.join(HEAD_OF)}, not {mode}")
