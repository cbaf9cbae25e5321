"""CT-FM's and Merlin's encoders: tensors by their published names, what they are shown, and packages made of them.

The published files can't be had here: checkpoints of the same names, in small, stand for them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TinyCohort
from safetensors.torch import save_file
from torch import Tensor

import fmct
from fmct.cli import main
from fmct.console.errors import UsageError
from fmct.data.presets import IsotropicSettings
from fmct.models.ctfm import CTFMConfig
from fmct.models.foreign import load_foreign
from fmct.models.merlin import MerlinConfig
from fmct.models.vit3d import ViT3DConfig


def filled(state: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Random tensors of the same names and shapes; variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, tensor in state.items():
        values = torch.randn(tensor.shape, generator=generator) * 0.1
        made[name] = values.abs() + 0.5 if name.endswith("var") else values.to(tensor.dtype)
    return made


def ctfm_tensors() -> dict[str, Tensor]:
    return filled(CTFMConfig(filters=4, blocks=(1, 1, 2)).build(1, 16).net.state_dict())


def merlin_tensors() -> dict[str, Tensor]:
    net = MerlinConfig(depth=50, widen=1 / 16).build(1, 16).net
    image = {f"encode_image.i3_resnet.{name}": tensor for name, tensor in filled(net.state_dict()).items()}
    heads = {f"encode_image.i3_resnet.{name}.weight": torch.zeros(2, 2) for name in ("classifier", "contrastive_head")}
    return image | heads | {"encode_text.linear_layer.weight": torch.zeros(2), "logit_scale": torch.ones([])}


def test_published_names_and_sizes() -> None:
    """As CT-FM's config.json and model card, and Merlin's i3res.py, state them."""
    with torch.device("meta"):
        ctfm, merlin = CTFMConfig().build(1, 224), MerlinConfig().build(1, 144)
    state = ctfm.net.state_dict()
    assert ctfm.width == 512
    assert state["conv_init.weight"].shape == (32, 1, 3, 3, 3)
    assert state["layers.3.blocks.3.conv2.weight"].shape == (256, 256, 3, 3, 3)
    assert state["layers.3.downsample.weight"].shape == (512, 256, 3, 3, 3)
    assert "layers.4.blocks.3.norm1.running_mean" in state
    state = merlin.net.state_dict()
    assert merlin.width == 2048
    assert state["conv1.weight"].shape == (64, 3, 3, 7, 7)
    assert merlin.net.conv1.stride == (1, 2, 2)
    assert merlin.net.conv1.padding == (1, 3, 3)
    assert state["layer3.35.conv2.weight"].shape == (256, 256, 3, 3, 3)
    assert state["layer4.0.downsample.0.weight"].shape == (2048, 1024, 1, 1, 1)
    assert merlin.net.layer4[0].conv2.stride == (2, 2, 2)
    assert not [name for name in state if name.endswith(("conv1.bias", "downsample.0.bias"))]


def test_ctfm_sees_axes_as_it_was_trained(tmp_path: Path) -> None:
    save_file(ctfm_tensors(), tmp_path / "m.safetensors")
    model = load_foreign(tmp_path / "m.safetensors", "ctfm").model
    x = torch.rand(2, 1, 16, 16, 16)
    with torch.no_grad():
        tokens = model(x)
        theirs = model.net(x.flip((3, 4)))[-1]  # superior, posterior, left
    assert tokens.shape == (2, 1 + 4**3, 16)
    torch.testing.assert_close(tokens[:, 0], theirs.mean((2, 3, 4)))
    torch.testing.assert_close(tokens[:, 1 + 3], theirs[:, :, 0, 3, 0])  # our right is their last column from the left


def test_merlin_sees_axes_slices_and_padding_as_it_was_trained(tmp_path: Path) -> None:
    torch.save(merlin_tensors(), tmp_path / "m.pt")
    imported = load_foreign(tmp_path / "m.pt", "merlin")
    assert imported.dropped == {
        "the head of phenotypes": 1,
        "the head that is compared with text": 1,
        "the text encoder's": 1,
        "of use in pretraining only": 1,
    }
    small = MerlinConfig(depth=50, widen=1 / 16, pad_zyx=(16, 48, 32)).build(1, 32)
    small.load_state_dict(imported.model.state_dict())
    x = torch.rand(2, 1, 24, 40, 32)
    with torch.no_grad():
        tokens = small.eval()(x)
        theirs = torch.zeros(2, 1, 32, 48, 16)  # as they write it: right, anterior, superior, slices 3 mm apart
        theirs[:, :, :, 4:44, 2:14] = 0.5 * (x[:, :, 0::2] + x[:, :, 1::2]).permute(0, 1, 4, 3, 2)
        y = theirs.permute(0, 1, 4, 2, 3).repeat(1, 3, 1, 1, 1)
        y = small.net.maxpool(small.net.act(small.net.bn1(small.net.conv1(y))))
        for stage in (small.net.layer1, small.net.layer2, small.net.layer3, small.net.layer4):
            y = stage(y)
    torch.testing.assert_close(tokens[:, 0], y.mean((2, 3, 4)), rtol=1e-4, atol=1e-5)
    assert tokens.shape[1] == 1 + y[0, 0].numel()
    with pytest.raises(UsageError, match="takes 1 window"):
        MerlinConfig().build(2, 144)


@pytest.mark.parametrize("wrapped", [False, True])
def test_segresnet_checkpoints_have_the_encoder_too(tmp_path: Path, wrapped: bool) -> None:
    tensors = {f"encoder.{name}": tensor for name, tensor in ctfm_tensors().items()}
    tensors["up_layers.0.weight"] = torch.zeros(1)
    torch.save({"state_dict": tensors} if wrapped else tensors, tmp_path / "m.pt")
    imported = load_foreign(tmp_path / "m.pt", "ctfm")
    assert imported.loaded == len(tensors) - 1
    assert imported.dropped == {"the decoder's": 1}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"layers.2.blocks.1.conv1.weight": None}, "missing: layers.2.blocks.1.conv1.weight"),
        ({"surprise.weight": torch.zeros(1)}, "unexpected: surprise.weight"),
        ({"layers.0.downsample.weight": torch.zeros(8, 4, 1, 1, 1)}, "misshapen: layers.0.downsample.weight"),
        ({"conv_init.weight": None}, "there is no conv_init.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, change: dict[str, Tensor | None], expected: str) -> None:
    tensors = ctfm_tensors() | change
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match=expected):
        load_foreign(tmp_path / "m.safetensors", "ctfm")


class Runs:
    """What a pickle must not be able to call."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("run",))


def test_no_code_of_a_checkpoint_runs(tmp_path: Path) -> None:
    torch.save({"state_dict": Runs()}, tmp_path / "m.pt")
    with pytest.raises(UsageError, match="without running code from it"):
        load_foreign(tmp_path / "m.pt", "merlin")
    (tmp_path / "m.safetensors").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="without running code from it"):
        load_foreign(tmp_path / "m.safetensors", "ctfm")


def test_from_a_checkpoint_to_a_probe(tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(ctfm_tensors(), tmp_path / "m.safetensors")
    weights = tmp_path / "ctfm"
    shown = ["--spacing-mm", "9", "--shape-voxels", "24"]
    command = ["import-reference", str(tmp_path / "m.safetensors"), "--kind", "ctfm", "--out", str(weights)]
    assert main([*command, *shown]) == 0
    assert "0 missing, 0 unexpected" in capsys.readouterr().out
    model = fmct.load(weights)
    assert model.preprocessing == IsotropicSettings(spacing_mm=9, shape_voxels=24)
    assert [(w.level_hu - w.width_hu / 2, w.level_hu + w.width_hu / 2) for w in model.input.windows] == [(-1024, 2048)]
    config = tmp_path / "probe.yaml"
    config.write_text(f"""
name: probe
task: {{kind: classifier, mode: logreg, labels: [ICH], weights: {weights}}}
backbone: {{kind: ctfm, filters: 4, blocks: [1, 1, 2]}}
input: {{voxels: 24, windows: [{{level_hu: 512, width_hu: 3072}}]}}
data: {{manifest: {tiny.manifest}, cache: {tiny.cache}, batch_size: 4}}
trainer: {{runs: {tmp_path}}}
""")
    assert main(["fit", "--config", str(config)]) == 0
    assert main(["evaluate", str(tmp_path / "probe"), "--data", str(tiny.manifest), "--bootstrap", "100"]) == 0
    assert main([*command, "--heads", "3", "--out", str(tmp_path / "again")]) == 2
    assert "--heads doesn't go with --kind ctfm" in capsys.readouterr().err


def test_the_defaults_are_what_the_authors_show(tmp_path: Path) -> None:
    torch.save(merlin_tensors(), tmp_path / "m.pt")
    out = tmp_path / "merlin"
    assert main(["import-reference", str(tmp_path / "m.pt"), "--kind", "merlin", "--out", str(out)]) == 0
    model = fmct.load(out)
    assert model.preprocessing == IsotropicSettings(spacing_mm=1.5, shape_voxels=144)
    assert model.input.voxels == 144
    assert (model.input.windows[0].level_hu, model.input.windows[0].width_hu) == (0, 2000)
    assert model.config.backbone == MerlinConfig(depth=50, widen=1 / 16)
    assert not isinstance(model.config.backbone, ViT3DConfig)
    assert "wasn't tested" in (out / "MODEL_CARD.md").read_text()
