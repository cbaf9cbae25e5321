"""Reading checkpoints of the published system, FM-HCT (arXiv 2502.02779), without running code that they may carry.

Such a file holds `state_dict` (the student, or the whole MAE) and `momentum_model_state_dict` (the teacher, or None).
All sizes follow from the tensors' shapes, except the number of attention heads, which leaves no trace in them.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fmct.console.errors import UsageError, require_file
from fmct.models.decoder import DecoderConfig, MAEDecoder
from fmct.models.heads import DINOHead, DINOHeadConfig
from fmct.models.vit3d import ViT3D, ViT3DConfig

Kind = Literal["dino", "mae"]
Which = Literal["teacher", "student"]

ENTRIES: dict[Which, str] = {"teacher": "momentum_model_state_dict", "student": "state_dict"}
LEFT_OUT = {"dino": ("head.",), "mae": ("decoder_", "mask_token")}  # of use in pretraining only
PUBLISHED_NAMES = {  # parts of names here and in a checkpoint, replaced in this order
    "decoder_mask_token": "mask_token",
    "decoder_positions": "decoder_pos_embed",
    "decoder_predict.": "decoder_pred.",
    "patch_embedding.": "patch_embedding.patch_embeddings.",
    "positions": "patch_embedding.position_embeddings",
    ".norm1.": ".att_norm.",
    ".attention.": ".attn.",
    ".norm2.": ".ffn_norm.",
    ".mlp.up.": ".mlp.linear1.",
    ".mlp.down.": ".mlp.linear2.",
    "prototypes": "last_layer.weight_v",
    "prototype_lengths": "last_layer.weight_g",
}


@dataclass(frozen=True)
class ImportReport:
    """What became of every tensor of the checkpoint; names are without the `module.` that DDP puts before them.

    Attributes:
        source: the checkpoint.
        kind: the pretext task that it was trained with.
        which: the network that was read; always the student for MAE, which has no teacher.
        loaded: published name to name here.
        missing: published names that the model needs and the checkpoint lacks.
        unexpected: published names that mean nothing here, or whose shape (given after the name) doesn't fit.
        dropped: published names left out on purpose, with the reason; the other network's follow its entry's name.
    """

    source: Path
    kind: Kind
    which: Which
    loaded: Mapping[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    dropped: Mapping[str, str]


@dataclass(frozen=True)
class ReferenceImport:
    """A published backbone as this package's own, and what was read for it."""

    model: ViT3D
    kind: Kind
    report: ImportReport


@dataclass(frozen=True)
class _Checkpoint:
    """The tensors of the network asked for, by published name, and why the other network's are left out."""

    path: Path
    kind: Kind
    which: Which
    tensors: dict[str, Tensor]
    others: dict[str, str]

    def shape(self, name: str, dimensions: int) -> torch.Size:
        """Return a tensor's shape, or raise UsageError if it isn't there or has other dimensions."""
        shape = self.tensors[name].shape if name in self.tensors else None
        if shape is None or len(shape) != dimensions:
            raise UsageError(
                f"{name} is {'missing' if shape is None else tuple(shape)}, not a tensor of {dimensions} dimensions",
                f"{self.path}, {ENTRIES[self.which]}",
                "import a checkpoint of the published DINO or MAE pretraining",
            )
        return shape

    def part(self, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.tensors.items() if name.startswith(prefixes)}

    def count(self, pattern: str) -> int:
        """Return one more than the largest number that the pattern finds in the tensors' names."""
        return max((int(m[1]) + 1 for m in map(re.compile(pattern).match, self.tensors) if m), default=0)


def load_reference(path: Path, which: Which = "teacher", heads: int = 12) -> ReferenceImport:
    """Read the backbone of a published checkpoint, in evaluation mode, and report what became of every tensor.

    Args:
        path: the checkpoint.
        which: network to read of a DINO checkpoint; an MAE checkpoint has only one.
        heads: attention heads, which the checkpoint doesn't tell; with a wrong number the model runs, and is wrong.

    Raises:
        UsageError: when the file can't be read safely, isn't such a checkpoint, lacks a tensor or has an unknown one.
    """
    checkpoint = _read(path, which)
    prefix = "backbone." if checkpoint.kind == "dino" else ""
    width, channels, *patch = checkpoint.shape(prefix + "patch_embedding.patch_embeddings.weight", 5)
    patches = checkpoint.shape(prefix + "patch_embedding.position_embeddings", 3)[1]
    hidden = checkpoint.shape(prefix + "blocks.0.mlp.linear1.weight", 2)[0]
    has_registers = prefix + "register_tokens" in checkpoint.tensors
    edge = round(patches ** (1 / 3))
    if edge**3 != patches:
        raise UsageError(f"{patches} positions don't make a cube", path, "only models of cubic inputs can be imported")
    config = ViT3DConfig(
        width=width,
        depth=checkpoint.count(re.escape(prefix) + r"blocks\.(\d+)\."),
        heads=_check_heads(heads, width, path),
        patch_voxels=(patch[0], patch[1], patch[2]),
        registers=checkpoint.shape(prefix + "register_tokens", 3)[1] if has_registers else 0,
        mlp_ratio=hidden / width,
        final_norm_eps=1e-6 if checkpoint.kind == "dino" else 1e-5,
    )
    model = config.build(channels, (edge * patch[0], edge * patch[1], edge * patch[2]))
    aside = checkpoint.part(LEFT_OUT[checkpoint.kind])
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in aside}
    report = _load(checkpoint, model, tensors, prefix, dict.fromkeys(aside, "of use in pretraining only"))
    return ReferenceImport(model.eval(), checkpoint.kind, report)


def load_reference_head(path: Path, which: Which = "teacher") -> DINOHead:
    """Read the projection head of a published DINO checkpoint, in evaluation mode.

    Raises:
        UsageError: as `load_reference`, and for an MAE checkpoint, which has no such head.
    """
    checkpoint = _read(path, which)
    if checkpoint.kind != "dino":
        raise UsageError("an MAE checkpoint has no DINO head", path, "give a checkpoint of the DINO pretraining")
    prototypes, bottleneck = checkpoint.shape("head.last_layer.weight_v", 2)
    hidden, width = checkpoint.shape("head.mlp.0.weight", 2)
    tensors = checkpoint.part(LEFT_OUT["dino"])
    fixed = bool((tensors.get("head.last_layer.weight_g", torch.zeros(1)) == 1).all())
    if fixed:
        del tensors["head.last_layer.weight_g"]
    layers = (checkpoint.count(r"head\.mlp\.(\d+)\.") + 1) // 2
    sizes = {"layers": layers, "hidden": hidden, "bottleneck": bottleneck, "prototypes": prototypes}
    head = DINOHeadConfig(normalize_last_layer=fixed, **sizes).build(width)
    _load(checkpoint, head, tensors, "head.", {})
    return head.eval()


def load_reference_decoder(path: Path, encoder: ViT3D, heads: int = 16) -> MAEDecoder:
    """Read the decoder of a published MAE checkpoint, in evaluation mode.

    Args:
        path: the checkpoint.
        encoder: the backbone of the same checkpoint, from `load_reference`.
        heads: attention heads of the decoder, which the checkpoint doesn't tell.

    Raises:
        UsageError: as `load_reference`, and for a DINO checkpoint.
    """
    checkpoint = _read(path, "student")
    if checkpoint.kind != "mae":
        raise UsageError("a DINO checkpoint has no decoder", path, "give a checkpoint of the MAE pretraining")
    width = checkpoint.shape("decoder_embed.weight", 2)[0]
    hidden = checkpoint.shape("decoder_blocks.0.mlp.linear1.weight", 2)[0]
    depth = checkpoint.count(r"decoder_blocks\.(\d+)\.")
    heads = _check_heads(heads, width, path)
    config = DecoderConfig(depth=depth, width=width, heads=heads, mlp_ratio=hidden / width)
    decoder = config.build(encoder, encoder.in_channels)
    _load(checkpoint, decoder, checkpoint.part(LEFT_OUT["mae"]), "decoder_", {})
    return decoder.eval()


def _check_heads(heads: int, width: int, path: Path) -> int:
    if heads < 1 or width % heads:
        choices = [h for h in range(1, 65) if width % h == 0]
        raise UsageError(f"{heads} heads don't divide the width {width}", path, f"give heads as one of {choices}")
    return heads


def _read(path: Path, which: Which) -> _Checkpoint:
    require_file(path, "the checkpoint", "give the path of a checkpoint of the published system")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise UsageError(f"the checkpoint can't be read: {error.strerror}", path, "give a readable file") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise UsageError(
            "the file isn't a checkpoint that can be read without running code from it",
            path,
            "ask its owner for tensors only: torch.save({'state_dict': ..., 'momentum_model_state_dict': ...})",
        ) from error
    entries = content if isinstance(content, dict) else {}
    networks = {network: _tensors(entries.get(entry)) for network, entry in ENTRIES.items()}
    kind: Kind = "dino" if any(name.startswith("backbone.") for name in networks["student"]) else "mae"
    if kind == "mae" and "decoder_pred.weight" not in networks["student"]:
        what = "the file has the tensors of neither the published DINO nor the published MAE model"
        raise UsageError(what, path, "give a checkpoint as the published pretraining writes it")
    chosen: Which = which if kind == "dino" else "student"
    if not networks[chosen]:
        raise UsageError(f"the checkpoint has no {chosen}", f"{path}, {ENTRIES[chosen]}", "import the student instead")
    other: Which = "student" if chosen == "teacher" else "teacher"
    others = {f"{ENTRIES[other]}: {name}": f"the {other}'s, not the {chosen}'s" for name in networks[other]}
    return _Checkpoint(path, kind, chosen, networks[chosen], others)


def _tensors(entry: object) -> dict[str, Tensor]:
    items = entry.items() if isinstance(entry, Mapping) else ()
    return {re.sub(r"^(module\.)+", "", str(name)): tensor for name, tensor in items if isinstance(tensor, Tensor)}


def _load(
    checkpoint: _Checkpoint, module: nn.Module, tensors: dict[str, Tensor], prefix: str, dropped: dict[str, str]
) -> ImportReport:
    """Load `tensors` into `module`; none may be missing, unknown or of another shape."""
    wanted = {}
    for here, own in module.state_dict().items():
        published = prefix + here
        for part_here, part_published in PUBLISHED_NAMES.items():
            published = published.replace(part_here, part_published)
        wanted[published] = (here, own.shape)
    loaded = {name: wanted[name][0] for name, t in tensors.items() if name in wanted and wanted[name][1] == t.shape}
    missing = tuple(name for name in wanted if name not in loaded)
    unexpected = tuple(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items() if name not in loaded)
    origin = checkpoint.path, checkpoint.kind, checkpoint.which
    report = ImportReport(*origin, loaded, missing, unexpected, dropped | checkpoint.others)
    if missing or unexpected:
        raise UsageError(
            f"missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(unexpected) or 'none'}",
            f"{checkpoint.path}, {ENTRIES[checkpoint.which]}",
            "import a checkpoint of the published model itself",
        )
    module.load_state_dict({here: tensors[name] for name, here in loaded.items()})
    return report
