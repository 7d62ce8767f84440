"""Each fast form against the plain one: the same values and the same gradients."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ecg_core.device import cpu_multiplies_bf16
from ecg_core.models import precision
from ecg_core.models.attention import attention
from ecg_core.models.dropout import draw_kept, dropout
from ecg_core.models.inner import gelu_linear
from ecg_core.models.positions import convolve_by_fft
from ecg_core.models.precision import Linear, linear
from ecg_core.models.recomputed import Recomputed
from ecg_core.models.transformer import TransformerEncoder, set_arithmetic
from ecg_core.models.wav2vec2_cmsc import build_pretraining, draw
from tests.models.tiny import common, tiny_params


def values_and_gradients(form: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """Return a form's output and the gradients of a weighted sum of it."""
    leaves = [value.clone().requires_grad_() for value in inputs]
    output = form(*leaves)
    weights = torch.linspace(-1, 2, output.numel()).view_as(output)
    (output.float() * weights).sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def assert_same(
    ours: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor, within: float
) -> None:
    pairs = zip(
        values_and_gradients(ours, *inputs), values_and_gradients(plain, *inputs), strict=True
    )
    for own, other in pairs:
        scale = float(other.abs().max())
        assert float((own.double() - other.double()).abs().max()) <= within * scale


@pytest.mark.parametrize("p", [0.0003, 0.1, 0.5, 0.9])
def test_dropout_drops_the_asked_part_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(1)
    n = 2_000_000
    out = dropout(torch.ones(n), p, training=True)
    dropped = float((out == 0).float().mean())
    assert abs(dropped - p) < 2**-17 + 5 * (p * (1 - p) / n) ** 0.5
    kept = out[out != 0]
    assert bool((kept == kept[0]).all())
    # the scale belongs to the rounded probability, so the expectation is exactly 1
    assert float(kept[0]) == pytest.approx(1 / (1 - round(p * 65536) / 65536), rel=1e-6)


def test_dropout_treats_neighbours_independently() -> None:
    # four numbers come of one random word: none of them may know of another
    torch.manual_seed(2)
    kept, _ = draw_kept(torch.Size((400_000,)), 0.5)
    signs = kept.float().view(-1, 4) * 2 - 1
    correlations = signs.T @ signs / len(signs)
    assert float((correlations - torch.eye(4)).abs().max()) < 5 / len(signs) ** 0.5


def test_dropout_passes_the_gradient_of_what_it_keeps() -> None:
    torch.manual_seed(3)
    x = torch.randn(50, 31, requires_grad=True)
    out = dropout(x, 0.25, training=True)
    out.sum().backward()
    expected = torch.where(out == 0, 0.0, 4 / 3)
    assert torch.allclose(x.grad, expected, rtol=1e-6)
    assert 0 < int((out == 0).sum()) < out.numel()


def test_dropout_is_nothing_out_of_training_or_at_zero() -> None:
    x = torch.randn(7)
    assert dropout(x, 0.3, training=False) is x
    assert dropout(x, 0.0, training=True) is x


def test_dropout_repeats_with_torch_s_seed_and_differs_without() -> None:
    x = torch.ones(1000)
    outs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        outs.append(dropout(x, 0.4, training=True))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("padded", [False, True])
def test_attention_with_dropout_is_the_formula_with_the_same_dropout(padded: bool) -> None:
    torch.manual_seed(4)
    q, k, v = (torch.randn(3, 2, 9, 5) for _ in range(3))
    hidden = torch.zeros(3, 9, dtype=torch.bool)
    hidden[1, 6:] = padded
    torch.manual_seed(7)
    kept, scale = draw_kept(torch.Size((3, 2, 9, 9)), 0.3)

    def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.mT / 5**0.5).masked_fill(hidden[:, None, None, :], -torch.inf)
        return (torch.softmax(scores, -1) * kept * scale) @ v

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        torch.manual_seed(7)
        return attention(q, k, v, hidden if padded else None, 0.3)

    assert_same(ours, formula, q, k, v, within=1e-6)


def test_attention_without_dropout_is_torch_s() -> None:
    q, k, v = (torch.randn(2, 2, 6, 4) for _ in range(3))
    assert_same(
        lambda *heads: attention(*heads, None, 0.0),
        F.scaled_dot_product_attention,
        q,
        k,
        v,
        within=1e-6,
    )


@pytest.mark.parametrize("by_convolution", [False, True])
@pytest.mark.parametrize("out", [5, 6, 9])
@pytest.mark.parametrize("shape", [(4, 7, 6), (1, 1, 6), (3, 6)])
def test_a_linear_layer_is_torch_s_in_fp32(
    shape: tuple[int, ...], out: int, by_convolution: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_prefers_convolution", lambda: by_convolution)
    x, weight, bias = torch.randn(shape), torch.randn(out, 6), torch.randn(out)
    assert_same(
        lambda *parts: linear(*parts, torch.float32), F.linear, x, weight, bias, within=1e-6
    )


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_gelu_computed_again_is_the_plain_form_with_the_same_dropout(p: float) -> None:
    layer = Linear(12, 7)
    torch.manual_seed(7)
    kept, scale = draw_kept(torch.Size((3 * 5, 12)), p) if p else (torch.ones(15, 12), 1.0)

    def ours(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        layer.weight, layer.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
        torch.manual_seed(7)
        return gelu_linear(h, layer, p)

    def plain(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(F.gelu(h) * kept.view(3, 5, 12) * scale, weight, bias)

    h, weight, bias = torch.randn(3, 5, 12), torch.randn(7, 12), torch.randn(7)
    found = values_and_gradients(lambda h: ours(h, weight, bias), h)
    found += [layer.weight.grad, layer.bias.grad]
    expected = values_and_gradients(plain, h, weight, bias)
    assert len(found) == len(expected) == 4
    for own, other in zip(found, expected, strict=True):
        assert torch.allclose(own, other, rtol=1e-5, atol=1e-5)


def rounded(x: Tensor) -> Tensor:
    """Round to bf16; the gradient passes."""
    return x + (x.to(torch.bfloat16).to(x.dtype) - x).detach()


@pytest.mark.skipif(cpu_multiplies_bf16(), reason="this processor multiplies bf16 itself")
def test_an_emulated_bf16_product_is_the_exact_product_of_rounded_numbers_rounded() -> None:
    x, weight, bias = torch.randn(40, 64), torch.randn(32, 64), torch.randn(32)
    ours = linear(x, weight, bias, torch.bfloat16)
    exact = rounded(x).double() @ rounded(weight).double().T + rounded(bias).double()
    assert ours.dtype == torch.bfloat16
    # one rounding of the sum: half a unit in the last of 8 bits, and fp32's own error
    assert float(((ours.double() - exact).abs() / exact.abs().clamp_min(1e-2)).max()) < 2**-8


@pytest.mark.skipif(cpu_multiplies_bf16(), reason="this processor multiplies bf16 itself")
def test_emulation_is_what_torch_s_own_slow_bf16_product_gives() -> None:
    x, weight, bias = torch.randn(16, 48), torch.randn(24, 48), torch.randn(24)

    def slow(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(*(part.to(torch.bfloat16) for part in (x, weight, bias)))

    assert_same(lambda *parts: linear(*parts, torch.bfloat16), slow, x, weight, bias, within=2**-7)


@pytest.mark.skipif(cpu_multiplies_bf16(), reason="this processor multiplies bf16 itself")
@pytest.mark.parametrize("checkpoints", [False, True])
def test_the_path_of_processors_with_bf16_gives_the_same_step(
    checkpoints: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch has bf16 products everywhere, only not fast: enough to run that path's arithmetic."""
    x = torch.randn(4, 10, 12)
    found = []
    for multiplies in (False, True):
        monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda it=multiplies: it)
        model = transformer(checkpoints, "bf16")
        torch.manual_seed(9)
        output = model(x, None)
        output[..., 0].sum().backward()
        moved = [p.grad for p in model.parameters() if p.grad is not None]
        found.append([output.detach(), torch.cat([grad.flatten() for grad in moved])])
    for emulated, native in zip(*found, strict=True):
        assert float((native - emulated).norm() / emulated.norm()) < 0.02


@pytest.mark.parametrize(("taps", "frames"), [(8, 20), (7, 20), (128, 156), (16, 5), (1, 3)])
def test_convolution_by_fft_is_the_convolution(taps: int, frames: int) -> None:
    x, weight = torch.randn(2, 6, frames), torch.randn(6, 2, taps)

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv1d(x, weight, padding=taps // 2, groups=3)[..., :frames]

    assert_same(lambda *parts: convolve_by_fft(*parts, groups=3), plain, x, weight, within=2e-6)


def transformer(checkpoints: bool, products: str = "fp32") -> TransformerEncoder:
    torch.manual_seed(8)
    model = TransformerEncoder(
        layers=3,
        channels=12,
        ffn_channels=20,
        heads=3,
        dropout=0.2,
        attention_dropout=0.1,
        activation_dropout=0.1,
        layerdrop=0.3,
        attend_across="frames",
    )
    settings = {"precision": products, "activation_checkpointing": checkpoints}
    set_arithmetic(model, common(**settings))
    return model.train()


@pytest.mark.parametrize("products", ["fp32", "bf16"])
def test_activation_checkpointing_changes_no_bit(products: str) -> None:
    x = torch.randn(4, 10, 12)
    found = []
    for checkpoints in (False, True):
        model = transformer(checkpoints, products)
        torch.manual_seed(9)
        output = model(x, None)
        output.pow(2).sum().backward()
        after = torch.rand(3)  # every generator stands where it stood without
        found.append([output, after, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 10
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_activation_checkpointing_changes_no_bit_of_a_whole_pretraining_step() -> None:
    dropouts = dict.fromkeys(("dropout", "attention_dropout", "dropout_input"), 0.2)
    params = tiny_params(encoder_layers=3, **dropouts)
    source = torch.randn(4, 12, 60)
    found = []
    for checkpoints in (False, True):
        model = build_pretraining(params, common(activation_checkpointing=checkpoints)).train()
        torch.manual_seed(9)
        output = model.pretrain(source, draw(params, 4, 60, 1, 0, 0), temperature=1.0)
        (output.frames.pow(2).sum() + output.features_penalty).backward()
        moved = [p.grad for p in model.parameters() if p.grad is not None]
        found.append([output.frames.detach(), torch.rand(3), *moved])
    assert len(found[0]) == len(found[1]) > 50
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_recomputing_gives_none_where_nothing_is_to_be_had() -> None:
    class Part(Recomputed):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.resting, self.unused = (
                torch.nn.Parameter(torch.ones(3)) for _ in range(3)
            )
            self.resting.requires_grad_(False)

        def forward(self, x: Tensor, more: Tensor | None) -> Tensor:
            return x * self.used * self.resting

    part = Part()
    part.checkpoints_activations = True
    part(torch.full((3,), 2.0), None).sum().backward()  # an input without gradient
    assert part.used.grad is not None
    assert part.used.grad.tolist() == [2.0] * 3
    assert part.resting.grad is None
    assert part.unused.grad is None
    x = torch.ones(3, requires_grad=True)
    part(x, None).sum().backward()
    assert x.grad.tolist() == [1.0] * 3
    with torch.no_grad():
        assert not part(x, None).requires_grad


def test_activation_checkpointing_keeps_a_layer_s_input_alone() -> None:
    kept = []
    for checkpoints in (False, True):
        saved: list[int] = []

        def note(x: Tensor, saved: list[int] = saved) -> Tensor:
            saved.append(x.numel())
            return x

        model = transformer(checkpoints)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            torch.manual_seed(9)
            model(torch.randn(4, 10, 12), None)
        kept.append(sum(saved))
    assert kept[1] < kept[0] / 5


def test_bf16_is_for_products_in_training_alone() -> None:
    model = transformer(False, "bf16")
    x = torch.randn(4, 10, 12)
    assert model(x, None).dtype == torch.float32
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    layer = next(module for module in model.modules() if isinstance(module, Linear))
    assert layer(x).dtype == torch.bfloat16
    exact = transformer(False, "fp32").eval()
    assert torch.equal(model.eval()(x, None), exact(x, None))


def test_bf16_training_follows_fp32_closely_and_not_exactly() -> None:
    x = torch.randn(4, 10, 12)
    gradients = []
    for products in ("fp32", "bf16"):
        model = transformer(False, products)
        torch.manual_seed(9)
        model(x, None)[..., 0].sum().backward()
        of = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        gradients.append(torch.cat(of))
    error = float((gradients[1] - gradients[0]).norm() / gradients[0].norm())
    assert 1e-5 < error < 0.05
