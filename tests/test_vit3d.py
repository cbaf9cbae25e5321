import copy
import math

import pytest
import torch
from pydantic import ValidationError

from fmct.console.errors import UsageError
from fmct.losses.reconstruction import patchify, reconstruction_loss
from fmct.models.blocks import drop_path
from fmct.models.decoder import DecoderConfig
from fmct.models.masking import draw_noise, random_keep
from fmct.models.positions import interpolate_positions, patch_grid, sincos_positions
from fmct.models.vit3d import ViT3D, ViT3DConfig
from fmct.models.vit_sizes import SIZES as PRESETS

SIZES = {"width": 24, "depth": 2, "heads": 2, "patch_voxels": (2, 4, 3)}
INPUT_ZYX = (8, 8, 9)


def tiny(seed: int = 0, **changes: object) -> ViT3D:
    torch.manual_seed(seed)
    return ViT3DConfig.model_validate(SIZES | changes).build(2, INPUT_ZYX)


def volumes(batch: int = 3, shape_zyx: tuple[int, int, int] = INPUT_ZYX) -> torch.Tensor:
    return torch.rand(batch, 2, *shape_zyx, generator=torch.Generator().manual_seed(1))


def test_tokens_and_defaults() -> None:
    model = tiny()
    assert (model.grid_zyx, model.patch_zyx, model.prefix_tokens) == ((4, 2, 3), (2, 4, 3), 5)
    assert model(volumes()).shape == (3, 1 + 4 + 24, 24)
    assert tiny(registers=0)(volumes()).shape == (3, 1 + 24, 24)
    assert tiny().grid_of(volumes(1, (2, 12, 6))) == (1, 3, 2)
    config = ViT3DConfig()
    assert (config.width, config.depth, config.heads, config.patch_voxels, config.registers) == (768, 12, 12, 12, 4)


def test_patch_embedding_is_the_convolution_of_its_weight() -> None:
    embedding, x = tiny().patch_embedding, volumes()
    torch.nn.init.normal_(embedding.bias)
    convolved = torch.nn.functional.conv3d(x, embedding.weight, embedding.bias, stride=(2, 4, 3))
    torch.testing.assert_close(embedding(x), convolved.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)
    keep = torch.tensor([[5, 0], [23, 7], [1, 2]])
    rows = torch.arange(3)[:, None]
    torch.testing.assert_close(embedding(x, keep), embedding(x)[rows, keep])


def test_attention_and_block_follow_their_formulas() -> None:
    block = tiny().blocks[0].double()
    x = torch.randn(1, 5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    query, key, value = (block.attention.qkv(block.norm1(x))[0].reshape(5, 3, 2, 12)[:, i] for i in range(3))
    heads = [(query[:, h] @ key[:, h].T / math.sqrt(12)).softmax(-1) @ value[:, h] for h in range(2)]
    x1 = x + block.attention.proj(torch.cat(heads, dim=-1))[None]
    up = block.mlp.up(block.norm2(x1))
    expected = x1 + block.mlp.down(up * 0.5 * (1 + torch.erf(up / math.sqrt(2))))
    torch.testing.assert_close(block(x), expected)


def test_patches_are_told_apart_by_position_only() -> None:
    model = tiny().eval()
    x = torch.full((1, 2, *INPUT_ZYX), 0.5)
    assert model(x)[0, 5:].std(0).max() > 1e-3
    torch.nn.init.zeros_(model.positions)
    assert model(x)[0, 5:].std(0).max() < 1e-5


def test_batched_is_one_by_one() -> None:
    model, x = tiny().eval(), volumes()
    keep = random_keep(draw_noise(3, 24, torch.Generator().manual_seed(3)), 0.5).keep_BK
    for kept in (None, keep):
        together = model(x, kept)
        alone = [model(x[i : i + 1], None if kept is None else kept[i : i + 1]) for i in range(3)]
        torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_keeping_all_patches_permutes_tokens() -> None:
    model, x = tiny().eval(), volumes()
    order = torch.stack([torch.randperm(24, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    rows = torch.arange(3)[:, None]
    tokens, permuted = model(x), model(x, order)
    torch.testing.assert_close(permuted[:, :5], tokens[:, :5], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(permuted[:, 5:], tokens[:, 5:][rows, order], atol=1e-5, rtol=1e-5)


def test_hidden_patches_have_no_influence() -> None:
    model, x = tiny().eval(), volumes(1)
    keep = torch.tensor([[0, 1]])  # both at z < 2, y < 4, x < 6
    changed = x.clone()
    changed[:, :, 2:] = 0
    torch.testing.assert_close(model(x, keep), model(changed, keep))


def test_other_sizes_see_interpolated_positions() -> None:
    model, x = tiny().eval(), volumes(2, (16, 4, 9))
    bigger = ViT3DConfig.model_validate(SIZES).build(2, (16, 4, 9)).eval()
    positions = interpolate_positions(model.positions, (4, 2, 3), (8, 1, 3))
    bigger.load_state_dict(model.state_dict() | {"positions": positions})
    torch.testing.assert_close(model(x), bigger(x))
    with torch.no_grad():
        model.positions.zero_()
    assert not torch.allclose(model(x), bigger(x)), "positions changed in place must count at once"


def test_interpolation_of_a_ramp() -> None:
    z, y, x = torch.meshgrid(torch.arange(4.0), torch.arange(2.0), torch.arange(3.0), indexing="ij")
    ramp = torch.stack([z, y, x, z + 10 * y], dim=-1).reshape(1, -1, 4)
    assert interpolate_positions(ramp, (4, 2, 3), (4, 2, 3)) is ramp
    half = interpolate_positions(ramp, (4, 2, 3), (2, 1, 3)).reshape(2, 1, 3, 4)
    assert half[:, 0, 0, 0].tolist() == [0.5, 2.5]  # cell centers 0, 1 and 2, 3 averaged: corners aren't aligned
    assert half[0, 0, 0, 1].item() == 0.5
    assert half[0, 0, :, 2].tolist() == [0, 1, 2]
    assert half[1, 0, 0, 3].item() == 7.5


def test_sincos_positions() -> None:
    positions = sincos_positions(12, (2, 3, 4))[0].reshape(2, 3, 4, 12)
    for axis, n in enumerate((2, 3, 4)):
        own = positions.movedim(axis, 0)[:, 0, 0, 4 * axis : 4 * axis + 4]
        expected = [[f(i * w) for f in (math.sin, math.cos) for w in (1.0, 0.01)] for i in range(n)]
        torch.testing.assert_close(own, torch.tensor(expected))
    padded = sincos_positions(16, (2, 3, 4))[0].reshape(2, 3, 4, 16)  # 6 doesn't divide 16
    assert torch.equal(padded[..., :12], positions)
    assert not padded[..., 12:].any()


@pytest.mark.parametrize("masked", [False, True])
def test_gradient_reaches_every_parameter(masked: bool) -> None:
    model, x = tiny().train(), volumes()
    decoder = DecoderConfig(depth=1, width=12, heads=2).build(model, 2)
    masking = random_keep(draw_noise(3, 24, torch.Generator().manual_seed(3)), 0.75)
    if masked:
        prediction = decoder(model(x, masking.keep_BK), masking.restore_BN)
        reconstruction_loss(prediction, patchify(x, model.patch_zyx), masking.mask_BN, normalize=True).backward()
    else:
        model(x)[:, 0].square().mul(torch.arange(24.0)).sum().backward()
    named = [*model.named_parameters(), *(decoder.named_parameters() if masked else [])]
    assert [name for name, p in named if p.grad is None or not p.grad.any()] == []


def test_activation_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointed in (False, True):
        model = tiny(drop_path=0.5, checkpoint_activations=checkpointed).train()
        torch.manual_seed(7)
        model(volumes()).square().mul(torch.arange(24.0)).mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize(("size", "millions"), [("small", 22), ("base", 86), ("large", 304), ("huge", 632)])
def test_sizes_are_the_published_ones(size: str, millions: int) -> None:
    config = ViT3DConfig.model_validate({"size": size, "patch_voxels": 12})
    assert config == ViT3DConfig(**PRESETS[size]._asdict())
    assert config.model_dump() == ViT3DConfig(**PRESETS[size]._asdict()).model_dump()
    with torch.device("meta"):
        model = config.build(1, 96)
    in_blocks = sum(p.numel() for p in model.blocks.parameters())
    assert in_blocks == config.depth * (12 * config.width**2 + 13 * config.width)
    published_rest = (16 * 16 * 3 + 1 + 197 + 1 + 2) * config.width  # patches of 16² in color, positions, CLS, norm
    assert (in_blocks + published_rest) / 1e6 == pytest.approx(millions, abs=1.2)
    assert model.positions.shape == (1, 512, config.width)


def test_explicit_numbers_win_over_a_size_unless_nothing_is_left_of_it() -> None:
    config = ViT3DConfig.model_validate({"size": "small", "depth": 3})
    assert (config.width, config.depth, config.heads) == (384, 3, 6)
    assert ViT3DConfig.model_validate({"size": "base", "width": 768, "depth": 12, "heads": 12}) == ViT3DConfig()
    with pytest.raises(ValidationError, match="size small has no effect beside width 768, depth 12, heads 12"):
        ViT3DConfig.model_validate({"size": "small", "width": 768, "depth": 12, "heads": 12})
    for wrong in ("tiny", ["small"]):
        with pytest.raises(ValidationError, match="size"):
            ViT3DConfig.model_validate({"size": wrong})


def test_layer_scale_multiplies_the_branches() -> None:
    plain, scaled = tiny(), tiny(layer_scale=0.5)
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(2))
    block, expected = plain.blocks[0], x
    for norm, branch in ((block.norm1, block.attention), (block.norm2, block.mlp)):
        expected = expected + 0.5 * branch(norm(expected))
    torch.testing.assert_close(scaled.blocks[0](x), expected)
    assert {n for n, _ in scaled.named_parameters()} - {n for n, _ in plain.named_parameters()} == {
        f"blocks.{i}.scale{j}" for i in range(2) for j in (1, 2)
    }


def test_layers_count_from_the_patches_to_the_final_norm() -> None:
    model = tiny(layer_scale=0.1)
    layers = {name: model.layer_of(name) for name, _ in model.named_parameters()}
    assert model.layers == 3
    assert {name for name, layer in layers.items() if layer == 0} == {
        *("cls_token", "register_tokens", "positions", "patch_embedding.weight", "patch_embedding.bias")
    }
    assert {name for name, layer in layers.items() if layer == 3} == {"norm.weight", "norm.bias"}
    assert all(layer == 1 + int(n.split(".")[1]) for n, layer in layers.items() if n.startswith("blocks."))


def test_drop_path() -> None:
    torch.manual_seed(0)
    dropped = drop_path(torch.ones(20_000, 2, 3), 0.3)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (dropped == dropped[:, :1, :1]).all(), "a scan is dropped as a whole"
    assert dropped.mean().item() == pytest.approx(1, abs=4 * math.sqrt(0.3 / 0.7 / 20_000))
    model, x = tiny(drop_path=0.6), volumes()
    assert [block.drop_path for block in model.blocks] == pytest.approx([0.3, 0.6])
    plain = tiny()
    assert torch.equal(model.eval()(x), plain.eval()(x))
    torch.manual_seed(0)
    assert not torch.equal(model.train()(x), plain.train()(x))


def test_no_decay_names_are_parameters() -> None:
    for registers in (0, 4):
        model = tiny(registers=registers)
        assert "positions" not in tiny(positions="rope").no_decay_names()
        tokens = {n for n, p in model.named_parameters() if n.endswith("token") or n.endswith("tokens")}
        assert model.no_decay_names() == tokens | {"positions"}
    decoder = DecoderConfig(depth=1, width=12, heads=2).build(model, 1)
    assert decoder.no_decay_names() <= {n for n, _ in decoder.named_parameters()}


def test_bfloat16_autocast_stays_near() -> None:
    model, x = tiny().eval(), volumes()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x)
    assert (rough.float() - model(x)).abs().max() < 0.1


def test_copies_are_equal_and_apart() -> None:
    model = tiny().eval()
    twin = copy.deepcopy(model)
    assert torch.equal(twin(volumes()), model(volumes()))
    assert twin.positions.data_ptr() != model.positions.data_ptr()


def test_bad_configurations_name_what_would_do() -> None:
    with pytest.raises(ValidationError, match=r"width 100 must .* divisible by 12 heads: try 96 or 108"):
        ViT3DConfig(width=100)
    with pytest.raises(ValidationError, match=r"width 4 must be at least 6 .* try 8 "):
        DecoderConfig(width=4, heads=4)
    with pytest.raises(ValidationError, match="heads of 4 must be even and at least 6"):
        ViT3DConfig(width=16, heads=4, positions="rope")
    for changes in ({"registers": -1}, {"drop_path": 1.0}, {"patch_voxels": (4, 0, 4)}, {"pach": 3}):
        with pytest.raises(ValidationError):
            ViT3DConfig.model_validate(changes)


def test_bad_inputs_name_what_would_do() -> None:
    with pytest.raises(UsageError, match=r"don't divide an input of \(100, 96, 96\)[\s\S]*to \(96, 96, 96\)"):
        ViT3DConfig.model_validate(SIZES | {"patch_voxels": 12}).build(1, (100, 96, 96))
    with pytest.raises(UsageError, match=r"to \(8, 8, 9\)"):
        tiny()(volumes(1, (8, 9, 9)))
    with pytest.raises(UsageError, match="2 channels"):
        tiny()(torch.zeros(1, 1, *INPUT_ZYX))
    with pytest.raises(UsageError, match=r"to \(12, 12, 12\)"):
        patch_grid((1, 12, 12), (12, 12, 12))


def test_decoder_leaves_registers_and_their_gradient_out() -> None:
    model = tiny().eval()
    decoder = DecoderConfig(depth=1, width=12, heads=2).build(model, 2).eval()
    masking = random_keep(draw_noise(2, 24, torch.Generator().manual_seed(3)), 0.75)
    latent = torch.randn(2, 1 + 4 + 6, 24, requires_grad=True)
    prediction = decoder(latent, masking.restore_BN)
    assert prediction.shape == (2, 24, 2 * 4 * 3 * 2)
    gradient = torch.autograd.grad(prediction.square().sum(), latent)[0].abs().sum((0, 2))
    assert (gradient[1:5] == 0).all()
    assert (gradient[[0, *range(5, 11)]] > 0).all()
    with pytest.raises(UsageError, match="built for 24"):
        decoder(latent, masking.restore_BN[:, :20])


def test_decoder_puts_seen_patches_where_they_were() -> None:
    model = tiny(registers=0).eval()
    decoder = DecoderConfig(depth=1, width=12, heads=2).build(model, 2).eval()
    decoder.blocks = torch.nn.ModuleList()  # without attention a token tells of its own place only
    masking = random_keep(draw_noise(1, 24, torch.Generator().manual_seed(3)), 0.75)
    latent = torch.randn(1, 1 + 6, 24)
    base, changed = decoder(latent, masking.restore_BN), latent.clone()
    changed[:, 1:] += 1
    moved = (decoder(changed, masking.restore_BN) != base).any(-1)
    assert torch.equal(moved, masking.mask_BN == 0)


def test_absent_patches_change_no_other_token() -> None:
    torch.manual_seed(0)
    model = ViT3DConfig(width=24, depth=2, heads=2, patch_voxels=4, registers=1).build(1, 8).eval()
    x = torch.rand(2, 1, 8, 8, 8)
    keep = torch.tensor([[3, 5, 1, 0], [6, 2, 7, 4]])
    absent = torch.tensor([[False, False, True, True], [False, False, False, False]])
    tokens = model(x, keep, absent_BK=absent)
    torch.testing.assert_close(tokens[:1, :4], model(x[:1], keep[:1, :2]))
    torch.testing.assert_close(tokens[1:], model(x[1:], keep[1:]))
    whole = model(x, absent_BK=torch.nn.functional.one_hot(torch.tensor([3, 0]), 8).bool())
    torch.testing.assert_close(whole[0, 6:], model(x, torch.tensor([[0, 1, 2, 4, 5, 6, 7]] * 2))[0, 5:])


def test_hidden_patches_carry_the_mask_token_and_nothing_of_themselves() -> None:
    torch.manual_seed(0)
    model = ViT3DConfig(width=24, depth=1, heads=2, patch_voxels=4, registers=1).build(1, 8).eval()
    x, hidden = torch.rand(1, 1, 8, 8, 8), torch.zeros(1, 8, dtype=torch.bool)
    hidden[0, 0] = True
    token = torch.randn(1, 1, 24, requires_grad=True)
    other = x.clone()
    other[..., :4, :4, :4] = 0
    tokens = model(x, hidden_BN=hidden, mask_token=token)
    torch.testing.assert_close(tokens, model(other, hidden_BN=hidden, mask_token=token))
    assert (tokens - model(x)).abs().max() > 1e-3
    tokens.sum().backward()
    assert token.grad is not None
    assert token.grad.abs().sum() > 0
