"""The contrastive task against its definition in loops, and where its gradients go."""

import math

import pytest
import torch

from ecg_core.models.wav2vec2_cmsc import Draws, Wav2Vec2CMSC, contrast, draw, pretrain_forward
from tests.models.tiny import tiny_params

SAMPLES = 160


def tiny(**changes: object) -> Wav2Vec2CMSC:
    torch.manual_seed(0)
    return Wav2Vec2CMSC(tiny_params(**changes))


def test_each_prediction_is_compared_with_its_target_and_its_negatives() -> None:
    torch.manual_seed(0)
    predicted, targets = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    targets[1, 2] = targets[1, 0]
    negatives = torch.tensor([[[1, 3], [0, 2], [3, 3], [0, 1]], [[2, 1], [0, 2], [1, 0], [2, 1]]])
    found = contrast(predicted, targets, negatives, logit_temp=0.1)
    for row in range(2):
        for frame in range(4):
            own = targets[row, frame]
            for place, other in enumerate([frame, *negatives[row, frame].tolist()]):
                candidate = targets[row, other]
                if place and torch.equal(candidate, own):
                    assert float(found[row, frame, place]) == -math.inf
                    continue
                p = predicted[row, frame]
                cosine = float(p @ candidate) / float(p.norm() * candidate.norm())
                assert float(found[row, frame, place]) == pytest.approx(cosine / 0.1, abs=1e-5)
    assert int(torch.isinf(found).sum()) == 2


def given_draws(model: Wav2Vec2CMSC, rows: int) -> Draws:
    return draw(model.params, rows, SAMPLES, seed=1, update=0, micro=0)


def test_a_pass_returns_what_the_losses_need() -> None:
    model, source = tiny(), torch.randn(4, 12, SAMPLES)
    draws = given_draws(model, 4)
    output = model.pretrain(source, draws, 2.0)
    masked = int(draws.span_mask[0].sum())
    assert output.logits.shape == (4, masked, 1 + 3)
    assert output.pooled.shape == (4, 12)
    assert output.frames.shape == (4, SAMPLES // 4, 12)
    assert output.n_codes == 10
    expected = model.feature_extractor(source).pow(2).mean()
    torch.testing.assert_close(output.features_penalty, expected)


def test_hidden_frames_say_nothing_of_their_own_content() -> None:
    """A model whose frames are all hidden answers the same whatever it is shown."""
    model = tiny().eval()
    shape = (2, SAMPLES // 4)
    hidden = torch.ones(shape, dtype=torch.bool)
    draws = Draws(hidden, torch.zeros(2, shape[1], 1, dtype=torch.int64), None)
    outputs = [model.pretrain(torch.randn(2, 12, SAMPLES), draws, 2.0).frames for _ in range(2)]
    assert torch.equal(outputs[0], outputs[1])


def test_targets_come_from_the_frames_as_they_were_before_the_mask() -> None:
    model, source = tiny().eval(), torch.randn(2, 12, SAMPLES)
    draws = given_draws(model, 2)._replace(noise=None)
    before = model.pretrain(source, draws, 2.0).targets
    with torch.no_grad():
        model.mask_emb.add_(7.0)
    assert torch.equal(model.pretrain(source, draws, 2.0).targets, before)


@pytest.mark.parametrize("scale", [0.1, 0.0])
def test_the_convolutions_learn_at_the_scale_that_the_parameter_says(scale: float) -> None:
    """The penalty's gradient is scaled too: it is taken after the scaling (method.md 2.1)."""
    grads = []
    for mult in (1.0, scale):
        model = tiny(feature_grad_mult=mult)
        output = model.pretrain(
            torch.ones(2, 12, SAMPLES).cumsum(-1).sin(), given_draws(model, 2), 2.0
        )
        output.features_penalty.backward() if mult else None
        grads.append(model.feature_extractor.get_parameter("conv_layers.0.0.weight").grad)
    if scale == 0:
        assert grads[1] is None
    else:
        torch.testing.assert_close(grads[1], scale * grads[0])


def test_every_parameter_learns() -> None:
    model = tiny()
    output = model.pretrain(torch.randn(4, 12, SAMPLES), given_draws(model, 4), 2.0)
    finite = output.logits[torch.isfinite(output.logits)]
    (finite.sum() + output.pooled.sum() + output.prob_perplexity).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_segment_without_any_lead_is_no_obstacle() -> None:
    """Q18: all its targets are equal, so all its negatives are -inf and its loss is 0."""
    model, source = tiny(), torch.randn(2, 12, SAMPLES)
    source[0] = 0
    output = model.pretrain(source, given_draws(model, 2)._replace(noise=None), 2.0)
    assert bool(torch.isinf(output.logits[0, :, 1:]).all())
    loss = torch.nn.functional.cross_entropy(
        output.logits.flatten(0, 1), torch.zeros(output.logits.shape[:2].numel()).long()
    )
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(bool(torch.isfinite(grad).all()) for grad in grads)


def test_chance_belongs_to_update_and_micro_batch() -> None:
    params = tiny_params()
    first, again = (draw(params, 4, SAMPLES, 1, update=5, micro=1) for _ in range(2))
    assert torch.equal(first.span_mask, again.span_mask)
    assert torch.equal(first.negatives, again.negatives)
    assert torch.equal(first.noise, again.noise)
    for seed, update, micro in ((2, 5, 1), (1, 6, 1), (1, 5, 0)):
        other = draw(params, 4, SAMPLES, seed, update, micro)
        assert not torch.equal(first.span_mask, other.span_mask)


def test_without_a_mask_every_frame_is_a_target() -> None:
    assert bool(draw(tiny_params(apply_mask=False), 2, SAMPLES, 1, 0, 0).span_mask.all())


def test_the_forward_pass_takes_the_temperature_of_its_update() -> None:
    model = tiny(latent_temp=(2.0, 0.5, 0.9))
    seen = []
    model.quantizer.register_forward_hook(lambda module, args, output: seen.append(args[1]))
    forward = pretrain_forward(model, 1, torch.device("cpu"))

    class Batch:
        source = torch.randn(2, 12, SAMPLES)
        padding = None

    forward(Batch(), 0, 0)
    forward(Batch(), 3, 0)
    assert seen == [2.0, pytest.approx(2.0 * 0.9**3)]
