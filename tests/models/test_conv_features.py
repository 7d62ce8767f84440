"""The convolutions against loops, and their number of frames against themselves."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ecg_core.models.conv_features import ConvFeatures, n_frames, scale_gradient
from ecg_core.models.fairseq_config import pretraining_params, template
from tests.replay.fixtures import OWN

BASE = pretraining_params(template("pretraining"), OWN)


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def test_the_published_convolutions_make_156_frames_of_five_seconds() -> None:
    assert BASE.frames(2500) == 156
    lengths = [n_frames(2500, BASE.conv_feature_layers[:k]) for k in range(5)]
    assert lengths == [2500, 1250, 625, 312, 156]


@given(
    samples=st.integers(60, 400),
    layers=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3
    ),
)
def test_the_number_of_frames_is_what_the_convolutions_give(
    samples: int, layers: list[tuple[int, int, int]]
) -> None:
    features = ConvFeatures(2, layers, "layer_norm", bias=False)
    assert features(torch.randn(1, 2, samples)).shape[-1] == n_frames(samples, layers)


@torch.no_grad()
def test_the_first_block_normalises_each_channel_over_time() -> None:
    torch.manual_seed(0)
    features = ConvFeatures(2, [(3, 2, 2)], "default", bias=False)
    norm = features.get_submodule("conv_layers.0.2")
    assert isinstance(norm, nn.GroupNorm)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    source = torch.randn(2, 2, 10)
    conv = features.get_parameter("conv_layers.0.0.weight")
    found = features(source)
    for row in range(2):
        for channel in range(3):
            raw = [
                sum(
                    float(conv[channel, lead, k] * source[row, lead, 2 * t + k])
                    for lead in range(2)
                    for k in range(2)
                )
                for t in range(5)
            ]
            mean = sum(raw) / 5
            variance = sum((x - mean) ** 2 for x in raw) / 5
            for t in range(5):
                z = (raw[t] - mean) / math.sqrt(variance + 1e-5)
                z = z * float(norm.weight[channel]) + float(norm.bias[channel])
                assert float(found[row, channel, t]) == pytest.approx(gelu(z), abs=1e-5)


def test_later_blocks_have_no_norm_in_the_default_mode_and_one_each_in_the_other() -> None:
    def names(mode: str) -> set[str]:
        features = ConvFeatures(12, [(4, 2, 2)] * 2, mode, bias=False)
        return set(features.state_dict())

    convolutions = {"conv_layers.0.0.weight", "conv_layers.1.0.weight"}
    group_norm = {"conv_layers.0.2.weight", "conv_layers.0.2.bias"}
    assert names("default") == convolutions | group_norm
    each = {f"conv_layers.{i}.2.1.{kind}" for i in range(2) for kind in ("weight", "bias")}
    assert names("layer_norm") == convolutions | each


def test_a_missing_lead_adds_nothing_to_the_convolution() -> None:
    features = ConvFeatures(12, [(4, 2, 2)], "default", bias=False)
    source = torch.randn(1, 12, 20)
    source[:, 5] = 0
    other = features.get_parameter("conv_layers.0.0.weight")
    before = features(source)
    with torch.no_grad():
        other[:, 5] = 99.0
    assert torch.equal(features(source), before)


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_scaling_the_gradient_leaves_the_value(scale: float) -> None:
    x = torch.randn(5, requires_grad=True)
    y = scale_gradient(x, scale)
    assert torch.equal(y, x)
    (y**2).sum().backward()
    torch.testing.assert_close(x.grad, 2 * scale * x.detach())
