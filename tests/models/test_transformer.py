"""Attention and positions against loops; what attends to what."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ecg_core.models.positions import PositionalConv
from ecg_core.models.transformer import SelfAttention, TransformerEncoder


def encoder(attend_across: str, layers: int = 1) -> TransformerEncoder:
    torch.manual_seed(0)
    module = TransformerEncoder(layers, 6, 8, 2, 0.0, 0.0, 0.0, 0.0, attend_across).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def linear(module: torch.nn.Module, x: Tensor) -> list[float]:
    weight, bias = module.weight, module.bias
    return [
        float(sum(w * v for w, v in zip(row, x, strict=True)) + b)
        for row, b in zip(weight, bias, strict=True)
    ]


def attention_in_loops(
    module: SelfAttention, x: list[Tensor], hidden: list[bool]
) -> list[list[float]]:
    """Let every vector of a list attend to all vectors of the list that are not hidden."""
    q = [linear(module.q_proj, v) for v in x]
    k = [linear(module.k_proj, v) for v in x]
    v = [linear(module.v_proj, one) for one in x]
    width = len(q[0]) // module.heads
    out = []
    for i in range(len(x)):
        joined: list[float] = []
        for head in range(module.heads):
            part = range(head * width, (head + 1) * width)
            scores = [
                -math.inf if hidden[j] else sum(q[i][c] * k[j][c] for c in part) / math.sqrt(width)
                for j in range(len(x))
            ]
            weights = [math.exp(score - max(scores)) for score in scores]
            total = sum(weights)
            joined += [sum(weights[j] * v[j][c] for j in range(len(x))) / total for c in part]
        out.append(linear(module.out_proj, torch.tensor(joined)))
    return out


def normal(module: torch.nn.LayerNorm, x: list[float]) -> list[float]:
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    return [
        (v - mean) / math.sqrt(variance + 1e-5) * float(w) + float(b)
        for v, w, b in zip(x, module.weight, module.bias, strict=True)
    ]


def layer_in_loops(layer: torch.nn.Module, x: list[Tensor], hidden: list[bool]) -> list[Tensor]:
    attended = attention_in_loops(layer.self_attn, x, hidden)
    out = []
    for vector, change in zip(x, attended, strict=True):
        y = normal(
            layer.self_attn_layer_norm, [float(a) + b for a, b in zip(vector, change, strict=True)]
        )
        inner = [
            0.5 * z * (1 + math.erf(z / math.sqrt(2))) for z in linear(layer.fc1, torch.tensor(y))
        ]
        change = linear(layer.fc2, torch.tensor(inner))
        out.append(
            torch.tensor(
                normal(layer.final_layer_norm, [a + b for a, b in zip(y, change, strict=True)])
            )
        )
    return out


def encoder_in_loops(module: TransformerEncoder, x: Tensor, padding: Tensor, across: str) -> Tensor:
    """Post-norm layers by their definition: `across` says which vectors stand in one list."""
    batch, frames, _ = x.shape
    state = [
        [
            torch.tensor(normal(module.layer_norm, (x[b, t] * (not padding[b, t])).tolist()))
            for t in range(frames)
        ]
        for b in range(batch)
    ]
    for layer in module.layers:
        if across == "frames":
            state = [layer_in_loops(layer, state[b], padding[b].tolist()) for b in range(batch)]
        else:
            columns = [
                layer_in_loops(layer, [state[b][t] for b in range(batch)], padding[:, t].tolist())
                for t in range(frames)
            ]
            state = [[columns[t][b] for t in range(frames)] for b in range(batch)]
    return torch.stack([torch.stack(row) for row in state])


@pytest.mark.parametrize("across", ["frames", "batch"])
@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_the_encoder_is_its_definition(across: str, padded: bool) -> None:
    """`batch` is Q1 of method.md: at each frame, rows attend to rows."""
    module, x = encoder(across, layers=2), torch.randn(3, 4, 6)
    padding = torch.zeros(3, 4, dtype=torch.bool)
    if padded:
        padding[1, 2:] = True
        padding[2, 3:] = True
    found = module(x, padding if padded else None)
    expected = encoder_in_loops(module, x, padding, across)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@torch.no_grad()
def test_across_frames_a_rows_answer_is_its_own() -> None:
    module, x = encoder("frames"), torch.randn(4, 5, 6)
    alone = torch.cat([module(row[None], None) for row in x])
    torch.testing.assert_close(module(x, None), alone, rtol=0, atol=1e-6)


@torch.no_grad()
def test_across_the_batch_a_rows_answer_depends_on_its_companions_and_no_other_frame() -> None:
    module, x = encoder("batch"), torch.randn(4, 5, 6)
    together = module(x, None)
    assert float((together - torch.cat([module(row[None], None) for row in x])).abs().max()) > 1e-2
    changed = x.clone()
    changed[0, 2] = torch.randn(6)
    difference = (module(changed, None) - together).abs().amax(dim=-1)
    assert bool((difference[:, 2] > 1e-4).all())
    difference[:, 2] = 0
    assert float(difference.max()) < 1e-6


@torch.no_grad()
def test_padded_frames_say_nothing_to_the_others() -> None:
    module, x = encoder("frames"), torch.randn(2, 6, 6)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[:, 4:] = True
    other = x.clone()
    other[:, 4:] = 99.0
    assert torch.equal(module(x, padding), module(other, padding))
    short = module(x[:, :4], None)
    torch.testing.assert_close(module(x, padding)[:, :4], short, rtol=0, atol=1e-6)


@torch.no_grad()
def test_positions_are_a_grouped_convolution_normalised_by_tap() -> None:
    torch.manual_seed(0)
    module = PositionalConv(channels=4, kernel=4, groups=2)
    conv = module.pos_conv[0]
    direction = conv.parametrizations.weight.original1
    length = conv.parametrizations.weight.original0
    with torch.no_grad():
        length.add_(torch.rand_like(length))
        conv.bias.normal_()
    assert length.shape == (1, 1, 4)
    x = torch.randn(1, 7, 4)
    found = module(x)
    assert found.shape == x.shape
    for t in range(7):
        for out in range(4):
            total = float(conv.bias[out])
            for tap in range(4):
                frame = t + tap - 2
                if not 0 <= frame < 7:
                    continue
                norm = math.sqrt(float((direction[:, :, tap] ** 2).sum()))
                for c in range(2):
                    weight = float(length[0, 0, tap] * direction[out, c, tap]) / norm
                    total += weight * float(x[0, frame, (out // 2) * 2 + c])
            assert float(found[0, t, out]) == pytest.approx(
                float(F.gelu(torch.tensor(total))), abs=1e-5
            )


def test_a_new_positional_convolution_has_the_length_of_its_directions() -> None:
    conv = PositionalConv(channels=8, kernel=6, groups=4).pos_conv[0]
    direction = conv.parametrizations.weight.original1
    torch.testing.assert_close(
        conv.parametrizations.weight.original0.flatten(), direction.pow(2).sum((0, 1)).sqrt()
    )


def test_layers_are_skipped_in_training_alone() -> None:
    module = TransformerEncoder(3, 6, 8, 2, 0.0, 0.0, 0.0, 0.999999, "frames")
    x = torch.randn(1, 4, 6)
    torch.testing.assert_close(module(x, None), module.layer_norm(x))
    module.eval()
    assert not torch.allclose(module(x, None), module.layer_norm(x))
