"""Published checkpoints are read whole or not at all, and never run code."""

from pathlib import Path

import pytest
import torch

from fmct.console.errors import UsageError
from fmct.models.reference import load_reference, load_reference_head

# the published names and shapes of a model of width 12, one block, 2 registers, patches of 2 x 3 x 4 and 8 positions
PUBLISHED = {
    "backbone.cls_token": ((1, 1, 12), "cls_token"),
    "backbone.register_tokens": ((1, 2, 12), "register_tokens"),
    "backbone.patch_embedding.position_embeddings": ((1, 8, 12), "positions"),
    "backbone.patch_embedding.patch_embeddings.weight": ((12, 5, 2, 3, 4), "patch_embedding.weight"),
    "backbone.patch_embedding.patch_embeddings.bias": ((12,), "patch_embedding.bias"),
    "backbone.blocks.0.att_norm.weight": ((12,), "blocks.0.norm1.weight"),
    "backbone.blocks.0.att_norm.bias": ((12,), "blocks.0.norm1.bias"),
    "backbone.blocks.0.attn.qkv.weight": ((36, 12), "blocks.0.attention.qkv.weight"),
    "backbone.blocks.0.attn.qkv.bias": ((36,), "blocks.0.attention.qkv.bias"),
    "backbone.blocks.0.attn.proj.weight": ((12, 12), "blocks.0.attention.proj.weight"),
    "backbone.blocks.0.attn.proj.bias": ((12,), "blocks.0.attention.proj.bias"),
    "backbone.blocks.0.ffn_norm.weight": ((12,), "blocks.0.norm2.weight"),
    "backbone.blocks.0.ffn_norm.bias": ((12,), "blocks.0.norm2.bias"),
    "backbone.blocks.0.mlp.linear1.weight": ((30, 12), "blocks.0.mlp.up.weight"),
    "backbone.blocks.0.mlp.linear1.bias": ((30,), "blocks.0.mlp.up.bias"),
    "backbone.blocks.0.mlp.linear2.weight": ((12, 30), "blocks.0.mlp.down.weight"),
    "backbone.blocks.0.mlp.linear2.bias": ((12,), "blocks.0.mlp.down.bias"),
    "backbone.norm.weight": ((12,), "norm.weight"),
    "backbone.norm.bias": ((12,), "norm.bias"),
    "head.mlp.0.weight": ((7, 12), "mlp.0.weight"),
    "head.mlp.0.bias": ((7,), "mlp.0.bias"),
    "head.mlp.2.weight": ((6, 7), "mlp.2.weight"),
    "head.mlp.2.bias": ((6,), "mlp.2.bias"),
    "head.last_layer.weight_v": ((9, 6), "prototypes"),
}
Content = dict[str, dict[str, torch.Tensor] | None]


def published_content() -> Content:
    generator = torch.Generator().manual_seed(0)
    entries = {}
    for entry in ("state_dict", "momentum_model_state_dict"):
        named = {f"module.{n}": torch.rand(shape, generator=generator) for n, (shape, _) in PUBLISHED.items()}
        entries[entry] = named | {"module.head.last_layer.weight_g": torch.ones(9, 1)}
    return entries


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(published_content(), tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_every_tensor_finds_its_place(checkpoint: Path, which: str) -> None:
    imported = load_reference(checkpoint, which, heads=2)
    assert imported.model.config.model_dump(include={"width", "depth", "heads", "registers", "mlp_ratio"}) == {
        "width": 12,
        "depth": 1,
        "heads": 2,
        "registers": 2,
        "mlp_ratio": 2.5,
    }
    model = imported.model
    assert (model.in_channels, model.patch_zyx, model.grid_zyx) == (5, (2, 3, 4), (2, 2, 2))
    assert (model.blocks[0].norm1.eps, model.norm.eps) == (1e-5, 1e-6)
    entry = published_content()["momentum_model_state_dict" if which == "teacher" else "state_dict"]
    states = {"backbone": model.state_dict(), "head": load_reference_head(checkpoint, which).state_dict()}
    for name, (_, here) in PUBLISHED.items():
        assert torch.equal(states[name.split(".")[0]][here], entry[f"module.{name}"]), name
        if name.startswith("backbone."):
            assert imported.report.loaded[name] == here
    assert len(imported.report.loaded) == len(model.state_dict()) == 19
    assert sum(name.startswith("head.") for name in imported.report.dropped) == 6
    assert sum(": " in name for name in imported.report.dropped) == len(PUBLISHED) + 1


def test_learned_prototype_lengths_are_kept(tmp_path: Path) -> None:
    content = published_content()
    content["momentum_model_state_dict"]["module.head.last_layer.weight_g"] = torch.full((9, 1), 2.0)
    torch.save(content, tmp_path / "lengths.pt")
    fixed = load_reference_head(tmp_path / "lengths.pt", "student")
    free = load_reference_head(tmp_path / "lengths.pt")
    assert fixed.prototype_lengths is None
    fixed.load_state_dict({name: t for name, t in free.state_dict().items() if name != "prototype_lengths"})
    torch.testing.assert_close(free(torch.ones(1, 12)), 2 * fixed(torch.ones(1, 12)))


def changed(folder: Path, change: str) -> Path:
    content = published_content()
    teacher, backbone = content["momentum_model_state_dict"], "module.backbone."
    if change == "no teacher":
        content["momentum_model_state_dict"] = None
    elif change == "wrapped twice":
        content["momentum_model_state_dict"] = {f"module.{name}": t for name, t in teacher.items()}
    elif change.startswith("without "):
        del teacher[backbone + change.removeprefix("without ")]
    else:
        name, shape = {
            "unexpected": (backbone + "blocks.0.lora.weight", (2, 2)),
            "stray": ("module.norm.bias", (12,)),
            "reshaped": (backbone + "norm.bias", (11,)),
            "no cube": (backbone + "patch_embedding.position_embeddings", (1, 9, 12)),
        }[change]
        teacher[name] = torch.zeros(shape)
    torch.save(content, folder / "changed.pt")
    return folder / "changed.pt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("without blocks.0.attn.proj.bias", r"missing: backbone\.blocks\.0\.attn\.proj\.bias; unexpected: none"),
        ("unexpected", r"missing: none; unexpected: backbone\.blocks\.0\.lora\.weight \(2, 2\)"),
        ("stray", r"missing: none; unexpected: norm\.bias \(12,\)"),
        ("reshaped", r"missing: backbone\.norm\.bias; unexpected: backbone\.norm\.bias \(11,\)"),
        ("no cube", "9 positions don't make a cube"),
        ("without patch_embedding.patch_embeddings.weight", r"patch_embeddings\.weight is missing"),
        ("no teacher", "the checkpoint has no teacher"),
    ],
)
def test_changed_checkpoints_are_refused(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_reference(changed(tmp_path, change), heads=2)


def test_what_is_no_mistake_is_read(tmp_path: Path, checkpoint: Path) -> None:
    load_reference(changed(tmp_path, "no teacher"), "student", heads=2)
    assert load_reference(changed(tmp_path, "without register_tokens"), heads=2).model.registers == 0
    again = load_reference(changed(tmp_path, "wrapped twice"), heads=2).model.state_dict()
    plain = load_reference(checkpoint, heads=2).model.state_dict()
    assert all(torch.equal(again[name], plain[name]) for name in plain)


def test_heads_must_divide_the_width(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match=r"5 heads don't divide the width 12[\s\S]*\[1, 2, 3, 4, 6, 12\]"):
        load_reference(checkpoint, heads=5)


class Payload:
    """An object whose unpickling would create a file: what a malicious checkpoint would do."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    torch.save({"state_dict": Payload(tmp_path / "trace")}, tmp_path / "payload.pt")
    with pytest.raises(UsageError, match="without running code") as caught:
        load_reference(tmp_path / "payload.pt")
    assert not (tmp_path / "trace").exists()
    assert "Fix: " in str(caught.value)
    assert "payload.pt" in str(caught.value)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(200)}}, tmp_path / "other.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "cut.pt").write_bytes((tmp_path / "other.pt").read_bytes()[:700])
    for name in ("text.pt", "empty.pt", "cut.pt"):
        with pytest.raises(UsageError, match="without running code"):
            load_reference(tmp_path / name)
    for name in ("other.pt", "tensor.pt"):
        with pytest.raises(UsageError, match="neither the published DINO nor the published MAE"):
            load_reference(tmp_path / name)
    with pytest.raises(UsageError, match=r"doesn't exist[\s\S]*other\.pt"):
        load_reference(tmp_path / "othr.pt")
    with pytest.raises(UsageError, match="can't be read"):
        load_reference(tmp_path)


def test_mae_without_backbone_tensors_names_the_first_missing(tmp_path: Path) -> None:
    torch.save({"state_dict": {"decoder_pred.weight": torch.zeros(3, 3)}}, tmp_path / "half.pt")
    with pytest.raises(UsageError, match=r"patch_embedding\.patch_embeddings\.weight is missing"):
        load_reference(tmp_path / "half.pt")
