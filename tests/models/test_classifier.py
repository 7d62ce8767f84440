"""The classifier: what learns, what rests, and on what its answers depend."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ecg_core.finetune_params import FinetuneParams
from ecg_core.models.classifier import (
    Classifier,
    build_classifier,
    finetune_forward,
    load_classifier,
    predict,
    pretrained_file,
    save_classifier,
)
from ecg_core.models.encoder import Encoder
from ecg_core.models.model_file import BadCheckpoint
from ecg_core.models.wav2vec2_cmsc import Wav2Vec2CMSC, save_pretraining
from ecg_core.params import read_section
from tests.models.tiny import PARAMS_FILE, common, tiny_params


def pretrained(tmp_path: Path, **changes: Any) -> tuple[Path, Wav2Vec2CMSC]:
    torch.manual_seed(0)
    model = Wav2Vec2CMSC(tiny_params(**changes))
    save_pretraining(tmp_path / "model.safetensors", model)
    return tmp_path / "model.safetensors", model


def finetuning(**changes: Any) -> FinetuneParams:
    return read_section("finetune", FinetuneParams, PARAMS_FILE).model_copy(update=changes)


def batch(rows: int = 4, seed: int = 0) -> SimpleNamespace:
    source = torch.randn(rows, 12, 160, generator=torch.Generator().manual_seed(seed))
    return SimpleNamespace(source=source, padding=None)


def learned(classifier: Classifier, update: int = 0, resting: int = 0) -> set[str]:
    """Return the names, up to the first dots, of what has a gradient after one pass."""
    classifier.train()
    finetune_forward(classifier, resting)(batch(), update).sum().backward()
    names = [n for n, p in classifier.named_parameters() if p.grad is not None]
    return {".".join(n.split(".")[:2]) for n in names}


ALL = {"proj.weight", "proj.bias"} | {
    f"encoder.{part}"
    for part in ("encoder", "feature_extractor", "post_extract_proj", "conv_pos", "layer_norm")
}
HEAD = {"proj.weight", "proj.bias"}


@pytest.mark.parametrize(
    ("freeze", "expected"),
    [("none", ALL), ("conv", ALL - {"encoder.feature_extractor"}), ("encoder", HEAD)],
)
def test_what_is_frozen_gets_no_gradient(freeze: str, expected: set[str], tmp_path: Path) -> None:
    path, _ = pretrained(tmp_path)
    assert learned(build_classifier(path, finetuning(freeze=freeze), common(1))) == expected


def test_the_encoder_rests_for_the_first_updates(tmp_path: Path) -> None:
    path, _ = pretrained(tmp_path)
    for update, expected in ((0, HEAD), (1, HEAD), (2, ALL)):
        classifier = build_classifier(path, finetuning(freeze="none"), common(1))
        assert learned(classifier, update, resting=2) == expected


def test_a_classifier_begins_with_the_checkpoints_weights_and_finetunings_dropouts(
    tmp_path: Path,
) -> None:
    path, model = pretrained(tmp_path, dropout=0.3)
    classifier = build_classifier(path, finetuning(activation_dropout=0.25), common(1))
    assert classifier.encoder.params.dropout == 0.0
    assert classifier.encoder.params.activation_dropout == 0.25
    for name, tensor in classifier.encoder.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert not bool(classifier.proj.bias.any())


@pytest.mark.parametrize("init", ["scratch", "random_frozen"])
def test_without_pretraining_the_weights_are_new_and_the_shape_the_same(
    init: str, tmp_path: Path
) -> None:
    path, model = pretrained(tmp_path)
    classifier = build_classifier(path, finetuning(init=init, freeze="none"), common(1))
    same = build_classifier(path, finetuning(init=init), common(1))
    name = "encoder.layers.0.fc1.weight"
    found = classifier.encoder.state_dict()[name]
    assert found.shape == model.state_dict()[name].shape
    assert not torch.equal(found, model.state_dict()[name])
    assert torch.equal(found, same.encoder.state_dict()[name])
    assert learned(classifier) == (ALL if init == "scratch" else HEAD)


def test_a_frozen_encoder_has_no_dropout_and_is_not_trained(tmp_path: Path) -> None:
    path, _ = pretrained(tmp_path)
    params = finetuning(freeze="encoder", dropout=0.5, activation_dropout=0.5)
    classifier = build_classifier(path, params, common(1))
    classifier.train()
    assert torch.equal(classifier(batch().source), classifier(batch().source))
    assert [p.shape for p in classifier.learning()] == [(26, 12), (26,)]


def test_a_saved_classifier_answers_the_same(tmp_path: Path) -> None:
    path, _ = pretrained(tmp_path)
    classifier = build_classifier(path, finetuning(), common(1))
    with torch.no_grad():
        classifier.proj.bias.normal_()
    save_classifier(tmp_path / "c", classifier)
    loaded = load_classifier(tmp_path / "c", "cpu")
    assert not loaded.training
    found, expected = predict(loaded, [batch()]), predict(classifier, [batch()])
    assert torch.equal(found, expected)


def test_only_the_wanted_kind_of_checkpoint_is_taken(tmp_path: Path) -> None:
    path, _ = pretrained(tmp_path)
    save_classifier(tmp_path / "c", Classifier(Encoder(tiny_params()), 26, 0.0))
    with pytest.raises(BadCheckpoint, match="expected a pretrained model, found a classifier"):
        build_classifier(tmp_path / "c", finetuning(), common(1))
    with pytest.raises(BadCheckpoint, match="expected a finetuned classifier, found a pretrained"):
        load_classifier(path, "cpu")


def test_an_epoch_that_was_not_kept_is_refused(tmp_path: Path) -> None:
    (tmp_path / "epoch-0010.safetensors").touch()
    assert pretrained_file(tmp_path, 10).name == "epoch-0010.safetensors"
    with pytest.raises(BadCheckpoint, match=r"checkpoint\.keep_epochs"):
        pretrained_file(tmp_path, 20)


def answers(attend_across: str, sizes: list[int]) -> torch.Tensor:
    """Return the logits of eight segments, in batches of these sizes."""
    torch.manual_seed(0)
    encoder = Encoder(tiny_params(attend_across=attend_across))
    classifier = Classifier(encoder, 3, 0.0)
    with torch.no_grad():
        # first weights hardly attend to anything in particular
        for parameter in encoder.encoder.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    parts = torch.split(batch(8).source, sizes)
    return predict(classifier, [SimpleNamespace(source=part, padding=None) for part in parts])


def test_across_frames_answers_do_not_depend_on_the_batches() -> None:
    expected = answers("frames", [8])
    for sizes in ([4, 4], [3, 3, 2], [1] * 8):
        torch.testing.assert_close(answers("frames", sizes), expected, rtol=0, atol=1e-5)


def test_across_the_batch_answers_depend_on_the_batches_so_evaluation_has_to_fix_them() -> None:
    """model.attend_across: batch (Q1): the same batches give the same answers, others do not."""
    expected = answers("batch", [4, 4])
    assert torch.equal(answers("batch", [4, 4]), expected)
    assert float((answers("batch", [8]) - expected).abs().max()) > 1e-3
