"""ArcFace's logits against angles, and its head against its definition."""

import math
from pathlib import Path

import pytest
import torch

from ecg_core.identify_params import IdentifyParams
from ecg_core.models.arcface import ArcFace, arcface_logits, build_arcface, embeddings
from ecg_core.models.encoder import Encoder, ModelParams
from ecg_core.models.model_file import save_model
from ecg_core.params import read_section
from tests.models.tiny import common

PARAMS_FILE = Path(__file__).parents[2] / "params.yaml"


def params() -> ModelParams:
    small = {"encoder_layers": 1, "conv_pos": 4}
    return read_section("model", ModelParams, PARAMS_FILE).model_copy(update=small)


def test_the_own_patient_is_margin_radians_further_away() -> None:
    angles = torch.linspace(0.01, math.pi - 1.01, 20, dtype=torch.float64)
    cosines = torch.stack([angles.cos(), torch.full_like(angles, 0.3)], dim=1)
    own = torch.zeros(20, dtype=torch.int64)
    logits = arcface_logits(cosines, own, scale=192.0, margin=1.0)
    assert torch.allclose(logits[:, 0], 192.0 * (angles + 1.0).cos(), atol=1e-9)
    assert torch.allclose(logits[:, 1], torch.full_like(angles, 192.0 * 0.3))


def test_past_a_half_turn_the_cosine_falls_in_a_line() -> None:
    angles = torch.linspace(math.pi - 0.99, math.pi, 9, dtype=torch.float64)
    own = torch.zeros(9, dtype=torch.int64)
    logits = arcface_logits(angles.cos()[:, None], own, scale=2.0, margin=1.0)
    assert torch.allclose(logits[:, 0], 2.0 * (angles.cos() - math.sin(1.0)))
    assert bool((logits.diff(dim=0) < 0).all())


@pytest.mark.parametrize("cosine", [1.0, -1.0])
def test_gradients_are_finite_where_the_angle_has_none(cosine: float) -> None:
    cosines = torch.tensor([[cosine, 0.0]], requires_grad=True)
    arcface_logits(cosines, torch.tensor([0]), 192.0, 1.0).sum().backward()
    assert cosines.grad is not None
    assert bool(torch.isfinite(cosines.grad).all())


def test_without_a_margin_logits_are_scaled_cosines() -> None:
    cosines = torch.rand(5, 3) * 2 - 1
    logits = arcface_logits(cosines, torch.tensor([0, 1, 2, 0, 1]), 32.0, 0.0)
    assert torch.allclose(logits, 32.0 * cosines, atol=1e-5)


def test_columns_of_the_kernel_start_with_length_one() -> None:
    kernel = ArcFace(Encoder(params()), 50).kernel
    assert kernel.shape == (50, 96)
    assert torch.allclose(kernel.norm(dim=0), torch.ones(96))


def test_embeddings_have_length_one_and_cosines_are_of_directions() -> None:
    model = ArcFace(Encoder(params()), 4).eval()
    source = torch.randn(3, 12, 400)
    vectors = model.embed(source)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3))
    expected = torch.nn.functional.cosine_similarity(vectors[:, None], model.kernel[None], dim=2)
    assert torch.allclose(model(source), expected, atol=1e-5)
    with torch.no_grad():
        model.kernel *= 7.0
    assert torch.allclose(model(source), expected, atol=1e-5)


def identify_params(**update: object) -> IdentifyParams:
    return read_section("identify", IdentifyParams, PARAMS_FILE).model_copy(update=update)


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    model = params()
    torch.manual_seed(5)
    path = tmp_path / "model.safetensors"
    values = model.model_dump(mode="json", by_alias=True)
    save_model(path, "pretrained", values, Encoder(model))
    return path


def test_a_pretrained_start_has_the_checkpoints_weights(pretrained: Path) -> None:
    built = build_arcface(pretrained, identify_params(), 4, common(1))
    torch.manual_seed(5)
    for name, tensor in Encoder(params()).state_dict().items():
        assert torch.equal(built.encoder.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("update", "learning"),
    [
        ({"init": "random_frozen"}, {"kernel"}),
        ({"freeze": "encoder"}, {"kernel"}),
        ({"freeze": "conv"}, {"kernel", "encoder", "layer_norm", "post_extract_proj"}),
    ],
)
def test_what_rests_gets_no_gradient(
    pretrained: Path, update: dict[str, object], learning: set[str]
) -> None:
    model = build_arcface(pretrained, identify_params(**update), 4, common(1)).train()
    model(torch.randn(2, 12, 400)).sum().backward()
    moving = {name for name, tensor in model.named_parameters() if tensor.grad is not None}
    tops = {name.removeprefix("encoder.").split(".")[0] for name in moving}
    assert learning <= tops
    assert "feature_extractor" not in tops
    assert {id(p) for p in model.learning()} >= {
        id(p) for name, p in model.named_parameters() if name in moving
    }


def test_embeddings_of_batches_follow_each_other() -> None:
    model = ArcFace(Encoder(params()), 4)
    source = torch.randn(5, 12, 400)

    class Rows:
        def __init__(self, rows: torch.Tensor) -> None:
            self.source, self.padding = rows, None

    together = embeddings(model, [Rows(source)])
    apart = embeddings(model, [Rows(source[:2]), Rows(source[2:])])
    assert torch.allclose(together, apart, atol=1e-6)
