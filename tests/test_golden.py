"""The models and losses compute what the published ones did."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fmct.console.errors import UsageError
from fmct.losses.dino import DINOLoss
from fmct.losses.reconstruction import patchify, reconstruction_loss
from fmct.models.heads import AttentiveHeadConfig, LinearHeadConfig
from fmct.models.masking import random_keep
from fmct.models.reference import load_reference, load_reference_decoder, load_reference_head

HEADS = 4


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    return shared / "golden"


@pytest.fixture(scope="session")
def numbers(golden: Path) -> dict[str, dict[str, Tensor]]:
    names = ("vit_forward", "dino_loss", "mae_forward", "classifiers")
    return {name: {k: torch.from_numpy(v) for k, v in np.load(golden / f"{name}.npz").items()} for name in names}


def assert_equal(ours: Tensor, published: Tensor, tolerance: float = 1e-4) -> None:
    assert ours.shape == published.shape
    assert (ours - published).abs().max().item() < tolerance


@pytest.mark.parametrize("which", ["teacher", "student"])
@torch.no_grad()
def test_backbone(golden: Path, numbers: dict[str, dict[str, Tensor]], which: str) -> None:
    imported = load_reference(golden / "reference_dino_checkpoint.pt", which, heads=HEADS)
    vit = numbers["vit_forward"]
    assert imported.kind == "dino"
    assert not imported.model.training
    assert (imported.model.width, imported.model.config.depth, imported.model.registers) == (48, 2, 4)
    assert imported.model.patch_zyx == (12, 12, 12)
    assert imported.model.grid_zyx == (4, 4, 4)
    assert imported.model.config.final_norm_eps == 1e-6
    assert_equal(imported.model(vit["input"]), vit[f"{which}_tokens"])
    if which == "teacher":
        assert_equal(imported.model(vit["input_small"]), vit["teacher_tokens_small"])
        head = load_reference_head(golden / "reference_dino_checkpoint.pt")
        assert_equal(head(imported.model(vit["input"])[:, 0]), vit["teacher_head"])


def test_report_names_every_tensor(golden: Path) -> None:
    path = golden / "reference_dino_checkpoint.pt"
    report = load_reference(path, heads=HEADS).report
    content = torch.load(path, weights_only=True)
    teacher = {name.removeprefix("module.") for name in content["momentum_model_state_dict"]}
    student = {name.removeprefix("module.") for name in content["state_dict"]}
    assert set(report.loaded) == {name for name in teacher if name.startswith("backbone.")}
    assert report.missing == report.unexpected == ()
    left_out = {name for name in teacher if name.startswith("head.")}
    assert set(report.dropped) == left_out | {f"state_dict: {name}" for name in student}


@torch.no_grad()
def test_mae(golden: Path, numbers: dict[str, dict[str, Tensor]]) -> None:
    path = golden / "reference_mae_checkpoint.pt"
    mae, x = numbers["mae_forward"], numbers["vit_forward"]["input"]
    imported = load_reference(path, heads=HEADS)
    assert (imported.kind, imported.report.which, imported.model.registers) == ("mae", "student", 0)
    assert imported.model.config.final_norm_eps == 1e-5
    decoder = load_reference_decoder(path, imported.model, heads=HEADS)
    masking = random_keep(mae["noise"], 0.75)
    assert torch.equal(masking.mask_BN, mae["mask"])
    latent = imported.model(x, masking.keep_BK)
    assert_equal(latent, mae["latent"])
    prediction = decoder(latent, masking.restore_BN)
    assert_equal(prediction, mae["prediction"])
    target = patchify(x, (12, 12, 12))
    assert torch.equal(target[:, :2], mae["target_first_patch"])
    for normalize, name in ((False, "loss"), (True, "loss_norm_pix")):
        loss = reconstruction_loss(prediction, target, masking.mask_BN, normalize).item()
        assert loss == pytest.approx(mae[name].item(), rel=1e-5)


@pytest.mark.parametrize("as_list", [False, True])
def test_dino_loss_and_center(numbers: dict[str, dict[str, Tensor]], as_list: bool) -> None:
    dino = numbers["dino_loss"]
    criterion = DINOLoss(512)
    for k in range(3):
        student, teacher = dino[f"student_{k}"], dino[f"teacher_{k}"]
        views = (student.split(3), teacher.split(3)) if as_list else (student, teacher)
        loss = criterion(*views, dino[f"teacher_temp_{k}"].item())
        assert loss.item() == pytest.approx(dino[f"loss_{k}"].item(), rel=1e-5)
        criterion.update_center(teacher)
        assert_equal(criterion.center, dino[f"center_{k}"], 1e-6)


@torch.no_grad()
def test_probes(numbers: dict[str, dict[str, Tensor]]) -> None:
    tokens, published = numbers["vit_forward"]["teacher_tokens"], numbers["classifiers"]
    linear, attentive = LinearHeadConfig().build(48, 2).eval(), AttentiveHeadConfig(heads=HEADS).build(48, 2).eval()
    names = {
        "bn.": "norm.",
        "bn1.": "norm_tokens.",
        "bn2.": "norm_pooled.",
        "cls_token": "query",
        "wkv.": "key_value.",
        "linear.": "linear.",
    }
    for kind, head in (("linear", linear), ("attentive", attentive)):
        state = {name.removeprefix(f"{kind}."): t for name, t in published.items() if name.startswith(f"{kind}.")}
        renamed = {
            new + k.removeprefix(old): t for k, t in state.items() for old, new in names.items() if k.startswith(old)
        }
        head.load_state_dict(renamed, strict=True)
    # far below 1e-4: another epsilon or attention scale still comes within 1e-4
    assert_equal(linear(tokens), published["linear_logits"], 5e-7)
    assert_equal(linear(tokens[:, 0]), published["linear_logits"], 5e-7)
    assert_equal(attentive(tokens), published["attentive_logits"], 5e-7)


def test_kinds_are_told_apart(golden: Path) -> None:
    dino, mae = golden / "reference_dino_checkpoint.pt", golden / "reference_mae_checkpoint.pt"
    with pytest.raises(UsageError, match="no DINO head"):
        load_reference_head(mae)
    with pytest.raises(UsageError, match="no decoder"):
        load_reference_decoder(dino, load_reference(mae, heads=HEADS).model)
