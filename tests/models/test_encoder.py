"""The encoder: padding, pooling, and loading it out of any checkpoint of ours."""

from pathlib import Path

import pytest
import torch

from ecg_core.models.classifier import Classifier, save_classifier
from ecg_core.models.encoder import Encoder, ModelParams, load_encoder, pool
from ecg_core.models.model_file import BadCheckpoint, save_model
from ecg_core.models.wav2vec2_cmsc import Wav2Vec2CMSC, save_pretraining
from ecg_core.params import BadParams, parse_section
from tests.models.tiny import tiny_params

PATH = Path("somewhere")


def test_the_parameters_have_to_divide() -> None:
    values = tiny_params().model_dump(mode="json", by_alias=True)
    for key, value in (
        ("encoder_attention_heads", 5),
        ("conv_pos_groups", 5),
        ("latent_groups", 3),
    ):
        with pytest.raises(BadParams, match="to be a multiple of"):
            parse_section("model", {**values, key: value}, ModelParams, PATH)


def test_a_projection_is_there_only_where_the_widths_differ() -> None:
    assert "post_extract_proj.weight" in Encoder(tiny_params()).state_dict()
    same = Encoder(tiny_params(encoder_embed_dim=8, encoder_attention_heads=2))
    assert "post_extract_proj.weight" not in same.state_dict()


def test_frames_beyond_a_rows_own_length_are_padding() -> None:
    encoder = Encoder(tiny_params())
    lengths = (160, 81, 7)
    padding = torch.arange(160)[None, None, :] >= torch.tensor(lengths)[:, None, None]
    frames = encoder.frame_padding(padding.expand(3, 12, 160))
    expected = [
        [frame >= ((length - 2) // 2 + 1 - 2) // 2 + 1 for frame in range(40)] for length in lengths
    ]
    assert frames.tolist() == expected


def test_no_padding_is_none_and_uneven_leads_are_a_mistake() -> None:
    encoder = Encoder(tiny_params())
    nothing = torch.zeros(2, 12, 160, dtype=torch.bool)
    assert encoder.frame_padding(None) is None
    assert encoder.frame_padding(nothing) is None
    nothing[0, 3, -1] = True
    with pytest.raises(ValueError, match="equally long"):
        encoder.frame_padding(nothing)


def test_pooling_is_the_mean_over_frames_that_are_not_zero() -> None:
    frames = torch.randn(2, 5, 3)
    frames[0, 1, 2] = 0.0
    padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
    found = pool(frames, padding)
    for row in range(2):
        for channel in range(3):
            kept = [
                float(frames[row, t, channel])
                for t in range(5)
                if not padding[row, t] and frames[row, t, channel] != 0
            ]
            assert float(found[row, channel]) == pytest.approx(sum(kept) / len(kept), abs=1e-6)
    torch.testing.assert_close(pool(frames[1:], None), frames[1:].mean(1))


def test_a_segment_of_any_length_becomes_one_vector() -> None:
    encoder = Encoder(tiny_params()).eval()
    for samples in (20, 161):
        assert encoder(torch.randn(3, 12, samples)).shape == (3, 12)


def test_the_encoder_is_found_in_pretrained_and_finetuned_checkpoints(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Wav2Vec2CMSC(tiny_params())
    classifier = Classifier(Encoder(tiny_params()), 26, 0.0)
    save_pretraining(tmp_path / "p", model)
    save_classifier(tmp_path / "c", classifier)
    source = torch.randn(2, 12, 160)
    for name, origin in (("p", model), ("c", classifier.encoder)):
        loaded = load_encoder(tmp_path / name)
        assert not loaded.training
        torch.testing.assert_close(loaded(source), origin(source), rtol=0, atol=0)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "a", "unheard-of", {}, torch.nn.Linear(1, 1))
    with pytest.raises(BadCheckpoint, match="expected a model with an encoder, found a unheard-of"):
        load_encoder(tmp_path / "a")


def test_dropout_works_in_training_alone() -> None:
    encoder = Encoder(tiny_params(dropout_input=0.5))
    source = torch.randn(2, 12, 160)
    assert not torch.equal(encoder(source), encoder(source))
    encoder.eval()
    assert torch.equal(encoder(source), encoder(source))
