"""Low-rank adaptation: nothing changes before the first step, plain matrices after merging, errors with names."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from fmct.console.errors import UsageError
from fmct.models.cnn import ResNetConfig
from fmct.models.lora import LoRAConfig, add_lora, merged, train_factors
from fmct.models.vit3d import ViT3D, ViT3DConfig

CONFIG = ViT3DConfig(width=48, depth=2, heads=4, patch_voxels=8, registers=2, drop_path=0.5)
LORA = LoRAConfig(rank=3, alpha=6, targets=("qkv", "proj", "up"))


def backbone() -> ViT3D:
    torch.manual_seed(0)
    return CONFIG.build(1, 16).eval()


def adapted() -> ViT3D:
    """A backbone whose factors have learned something."""
    model = backbone()
    add_lora(model, LORA)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model.eval()


X = torch.rand(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))


def test_before_the_first_step_nothing_is_changed_bit_for_bit() -> None:
    plain, model = backbone(), backbone()
    add_lora(model, LORA)
    assert torch.equal(model(X), plain(X))
    assert torch.equal(model.eval()(X), plain(X))


def test_merged_weights_compute_the_same_and_are_plain_matrices() -> None:
    model = adapted()
    state = model.state_dict()
    tensors = merged(backbone(), LORA, state)
    plain = backbone()
    assert not torch.allclose(plain(X), model(X), atol=1e-3)
    plain.load_state_dict(tensors)  # strictly: no name is left over
    torch.testing.assert_close(plain(X), model(X), atol=1e-5, rtol=0)
    original = backbone().state_dict()
    for name, tensor in tensors.items():
        stem = name.removesuffix(".weight")
        if f"{stem}.lora_A.default.weight" not in state:
            assert torch.equal(tensor, original[name]), name
            continue
        a, b = (state[f"{stem}.lora_{factor}.default.weight"].double().numpy() for factor in "AB")
        expected = original[name].double().numpy() + b @ a * (6 / 3)
        np.testing.assert_allclose(tensor.numpy(), expected, atol=1e-6)
        assert np.linalg.matrix_rank(expected - original[name].numpy(), tol=1e-4) == 3
    assert tensors["blocks.0.attention.qkv.weight"].shape == (3 * 48, 48)


def test_heads_of_queries_keys_and_values_are_not_scrambled() -> None:
    """A change of the second head's values alone changes what the second head gives, and nothing else."""
    model = backbone()
    add_lora(model, LoRAConfig(rank=1, alpha=1, targets=("qkv",)))
    attention = model.blocks[0].attention
    with torch.no_grad():
        change = attention.qkv.lora_B.default.weight
        change[2 * 48 + 12 : 2 * 48 + 24] = 1.0
    plain = backbone()
    plain.load_state_dict(merged(backbone(), LoRAConfig(rank=1, alpha=1, targets=("qkv",)), model.state_dict()))
    tokens, given = torch.rand(1, 5, 48), []
    for net in (backbone(), plain, model):
        net.blocks[0].attention.proj.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        net.blocks[0].attention(tokens)
    moved = (given[1] - given[0]).abs().amax((0, 1)) > 1e-6
    assert moved.nonzero().flatten().tolist() == list(range(12, 24))
    torch.testing.assert_close(given[1], given[2], atol=1e-6, rtol=0)


def test_only_factors_learn_and_the_rest_works_as_in_evaluation() -> None:
    model = adapted()
    train_factors(model, True)
    assert torch.equal(model(X), model(X))  # no drop path
    model(X).sum().backward()
    learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learned == {name for name, _ in model.named_parameters() if "lora_" in name}
    assert len(learned) == 2 * 2 * 3  # two factors, two blocks, three layers
    with_dropout = backbone()
    add_lora(with_dropout, LoRAConfig(dropout=0.5))
    with torch.no_grad():
        for name, parameter in with_dropout.named_parameters():
            if "lora_B" in name:
                parameter.fill_(1.0)
    train_factors(with_dropout, True)
    assert not torch.equal(with_dropout(X), with_dropout(X))
    train_factors(with_dropout, False)
    assert torch.equal(with_dropout(X), with_dropout(X))


def test_convolutions_are_adapted_where_they_are_named() -> None:
    torch.manual_seed(0)
    net = ResNetConfig(depth=10, widen=0.125).build(1, 32).eval()
    original = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    lora = LoRAConfig(rank=2, targets=("conv2",))
    add_lora(net, lora)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    torch.manual_seed(0)
    plain = ResNetConfig(depth=10, widen=0.125).build(1, 32).eval()
    tensors = merged(ResNetConfig(depth=10, widen=0.125).build(1, 32), lora, net.state_dict())
    changed = {name for name, tensor in tensors.items() if not torch.equal(tensor, original[name])}
    assert changed == {f"net.layer{stage}.0.conv2.weight" for stage in range(1, 5)}
    plain.load_state_dict(tensors)
    x = torch.rand(1, 1, 32, 32, 32)
    torch.testing.assert_close(plain(x), net.eval()(x), atol=1e-4, rtol=1e-4)


def test_layers_that_are_not_there_are_named_with_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"vit3d has no layer called query\n[\s\S]*down, proj, qkv, up"):
        add_lora(backbone(), LoRAConfig(targets=("qkv", "query")))


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"needs the library peft[\s\S]*fmct\[peft\]"):
        add_lora(backbone(), LORA)
