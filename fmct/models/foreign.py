"""Reading checkpoints of other groups' CT models, CT-FM and Merlin, without running code that they may carry.

All sizes follow from names and shapes of the tensors. What doesn't belong to the image encoder is left out with its
reason; a tensor that is missing, unknown or of another shape is an error that names it.
"""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fmct.console.errors import UsageError, require_file
from fmct.models.ctfm import CTFM, CTFMConfig
from fmct.models.merlin import Merlin, MerlinConfig
from fmct.models.strict_loading import load_tensors
from fmct.views.windows import Window

ForeignKind = Literal["ctfm", "merlin"]

WINDOWS: dict[ForeignKind, Window] = {
    "ctfm": Window(level_hu=512, width_hu=3072),
    "merlin": Window(level_hu=0, width_hu=2000),
}
SPACING_MM: dict[ForeignKind, float] = {"ctfm": 1.0, "merlin": 1.5}
SHAPE_VOXELS: dict[ForeignKind, int] = {"ctfm": 224, "merlin": 144}
PREFIXES: dict[ForeignKind, str] = {"ctfm": r"(encoder\.)?", "merlin": r"(encode_image\.)?(i3_resnet\.)?"}
LEFT_OUT: dict[ForeignKind, dict[str, str]] = {
    "ctfm": {"up_layers.": "the decoder's", "head_module.": "a head's"},
    "merlin": {
        "encode_text.": "the text encoder's",
        "logit_scale": "of use in pretraining only",
        "classifier.": "the head of phenotypes",
        "contrastive_head.": "the head that is compared with text",
    },
}
DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


@dataclass(frozen=True)
class ForeignImport:
    """A published encoder as a backbone, and what was read for it.

    Attributes:
        model: in evaluation mode.
        loaded: how many tensors it has from the checkpoint.
        dropped: how many were left out, by reason.
    """

    model: CTFM | Merlin
    loaded: int
    dropped: Mapping[str, int]


def load_foreign(path: Path, kind: ForeignKind) -> ForeignImport:
    """Read the image encoder of a checkpoint.

    Args:
        path: a `.safetensors` file, or one of torch.save that holds tensors by name, maybe under `state_dict`.
        kind: whose it is.

    Raises:
        UsageError: when the file can't be read safely, or its tensors aren't such an encoder's.
    """
    tensors: dict[str, Tensor] = {}
    dropped: Counter[str] = Counter()
    for full, tensor in read_tensors(path).items():
        name = re.sub(r"^(module\.)?(model\.)?" + PREFIXES[kind], "", full)
        reason = next((why for start, why in LEFT_OUT[kind].items() if name.startswith(start)), None)
        if reason:
            dropped[reason] += 1
        else:
            tensors[name] = tensor
    model = ctfm_of(tensors, path) if kind == "ctfm" else merlin_of(tensors, path)
    load_tensors(model.net, tensors, path)
    return ForeignImport(model.eval(), len(tensors), dict(dropped))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file by their names."""
    require_file(path, "the checkpoint", "give the path of a file that the authors publish")
    try:
        if path.suffix == ".safetensors":
            found: dict[str, Tensor] = load_file(path)
            return found
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"the checkpoint can't be read: {error.strerror}", path, "give a readable file") from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise UsageError(
            "the file isn't a checkpoint that can be read without running code from it",
            path,
            "give one of tensors only: .safetensors, or torch.save(model.state_dict())",
        ) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def ctfm_of(tensors: Mapping[str, Tensor], path: Path) -> CTFM:
    """Build CT-FM's encoder as large as the tensors say."""
    filters, channels = first_shape(tensors, "conv_init.weight", path, "CT-FM's encoder")
    levels = blocks_in(tensors, r"layers\.(\d+)\.blocks\.(\d+)\.")
    return CTFMConfig(filters=filters, blocks=levels).build(channels, SHAPE_VOXELS["ctfm"])


def merlin_of(tensors: Mapping[str, Tensor], path: Path) -> Merlin:
    """Build Merlin's image encoder as large as the tensors say."""
    channels = first_shape(tensors, "conv1.weight", path, "Merlin's image encoder")[0]
    stages = blocks_in(tensors, r"layer(\d+)\.(\d+)\.")
    if stages not in DEPTHS:
        raise UsageError(
            f"the stages have {', '.join(map(str, stages))} blocks, no ResNet of {sorted(DEPTHS.values())} layers",
            path,
            "give the checkpoint of Merlin's image and text encoder",
        )
    return MerlinConfig.model_validate({"depth": DEPTHS[stages], "widen": channels / 64}).build(1, 0)


def first_shape(tensors: Mapping[str, Tensor], name: str, path: Path, whose: str) -> tuple[int, int]:
    """Return the output and input channels of the first convolution.

    Raises:
        UsageError: when there is none.
    """
    if name not in tensors or tensors[name].ndim != 5:
        others = ", ".join(list(tensors)[:3]) or "none"
        raise UsageError(
            f"there is no {name} of 5 dimensions, with which {whose} begins; the first tensors are {others}",
            path,
            "give the file that the authors publish, and --kind as it is theirs",
        )
    return int(tensors[name].shape[0]), int(tensors[name].shape[1])


def blocks_in(tensors: Mapping[str, Tensor], pattern: str) -> tuple[int, ...]:
    """Count the blocks of each level, by the numbers of level and block in the tensors' names."""
    pairs = {(int(match[1]), int(match[2])) for match in map(re.compile(pattern).match, tensors) if match}
    return tuple(count for _, count in sorted(Counter(level for level, _ in pairs).items())) or (1,)
