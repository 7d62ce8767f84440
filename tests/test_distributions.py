"""What chance gives here, against what it gave in the original: the same distributions.

Tolerances are five standard errors of both samples together, so a sound draw fails about once in
a million; the seeds are fixed, so a failure is not chance at all.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ecg_core.batches.augment import TaskParams, lead_mask_of
from ecg_core.batches.dataset import SegmentBatches
from ecg_core.batches.pairs import pair_segments
from ecg_core.models.classifier import Classifier
from ecg_core.models.encoder import Encoder, ModelParams
from ecg_core.models.fairseq_config import pretraining_params, template
from ecg_core.models.masking import draw_negatives, span_mask
from ecg_core.models.wav2vec2_cmsc import Wav2Vec2CMSC, build_pretraining, draw
from ecg_core.params import read_section
from ecg_core.seeds import numpy_generator
from ecg_core.segments import create_segments, open_segments
from tests.models.tiny import common
from tests.replay.fixtures import OWN
from tests.replay.trajectories import PARAMS_FILE

REFERENCE = json.loads((OWN / "c6_distributions.json").read_text())
FIRST_WEIGHTS = json.loads((OWN / "c8_init_stats.json").read_text())
SHAPES = json.loads((OWN / "A_model_shapes.json").read_text())
BASE = pretraining_params(template("pretraining"), OWN)
ERRORS = 5.0


def both(deviation: float, n_here: int, n_there: int) -> float:
    """Return how far two means of samples may lie apart."""
    return ERRORS * deviation * math.sqrt(1 / n_here + 1 / n_there)


def masks(frames: int, batch: int, n_batches: int) -> np.ndarray:
    """Return the masks of so many batches, one after another."""
    rng = np.random.default_rng(7)
    lengths = np.full(batch, frames)
    draws = [
        span_mask(rng, lengths, frames, 0.65, 10, "static", 0.0, same_number=True)
        for _ in range(n_batches)
    ]
    return np.concatenate(draws)


def runs(mask: np.ndarray) -> np.ndarray:
    """Return the lengths of all runs of hidden frames."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(int), axis=1)
    starts, ends = np.nonzero(edges == 1), np.nonzero(edges == -1)
    return ends[1] - starts[1]


@pytest.mark.parametrize("frames", [156, 312])
def test_span_masks_before_the_cut_are_the_originals(frames: int) -> None:
    there = REFERENCE[f"mask_T{frames}_B1"]
    here = masks(frames, 1, 3000)
    fraction, counts, lengths = here.mean(axis=1), here.sum(axis=1), runs(here)
    n, m = len(here), there["rows"]
    spread = math.sqrt(there["fraction_var"])
    assert fraction.mean() == pytest.approx(there["fraction_mean"], abs=both(spread, n, m))
    assert fraction.var() == pytest.approx(there["fraction_var"], rel=0.15)
    assert counts.min() >= there["count_min"] - 15
    assert counts.max() <= there["count_max"] + 15
    assert lengths.min() >= 10
    n_runs = m * there["count_mean"] / there["run_len_mean"]
    allowed = both(math.sqrt(there["run_len_var"]), len(lengths), int(n_runs))
    assert lengths.mean() == pytest.approx(there["run_len_mean"], abs=allowed)
    assert lengths.var() == pytest.approx(there["run_len_var"], rel=0.15)
    for place, name in ((slice(0, 12), "first12"), (slice(-12, None), "last12")):
        expected = np.array(there[f"mask_prob_by_position_{name}"])
        found = here[:, place].mean(axis=0)
        assert (np.abs(found - expected) <= both(0.5, n, m)).all()
    assert not here[:, -1].any()


@pytest.mark.parametrize("frames", [156, 312])
def test_span_masks_after_the_cut_to_the_batchs_minimum_are_the_originals(frames: int) -> None:
    there = REFERENCE[f"mask_T{frames}_B128"]
    here = masks(frames, 128, 80)
    counts = here.sum(axis=1)
    by_batch = counts.reshape(-1, 128)
    assert (by_batch == by_batch[:, :1]).all()
    # all rows of a batch hide the same number, so a batch is one observation
    spread = math.sqrt(there["fraction_var"]) * frames
    n, m = len(by_batch), there["rows"] // 128
    assert counts.mean() == pytest.approx(there["count_mean"], abs=both(spread, n, m))
    assert by_batch[:, 0].std() == pytest.approx(spread, rel=0.5)
    # fragments: the shorter the fewer are hidden, so held against masks of the same number
    lengths = runs(here)
    assert lengths.mean() == pytest.approx(there["run_len_mean"], rel=0.1)
    assert (lengths < 10).mean() == pytest.approx(there["runs_shorter_than_10"], abs=0.03)
    for place, name in ((slice(0, 12), "first12"), (slice(-12, None), "last12")):
        expected = np.array(there[f"mask_prob_by_position_{name}"]) / there["fraction_mean"]
        found = here[:, place].mean(axis=0) / here.mean()
        assert (np.abs(found - expected) <= 0.09).all()


def test_a_micro_batch_draws_by_the_models_own_parameters() -> None:
    here = draw(BASE, 16, 2500, 1, update=3, micro=2)
    rng, lengths = numpy_generator("span mask", 1, 3, 2), np.full(16, 156)
    mask = span_mask(rng, lengths, 156, 0.65, 10, "static", 0.0, same_number=True)
    assert np.array_equal(here.span_mask.numpy(), mask)
    masked = int(mask[0].sum())
    assert here.negatives.shape == (16, masked, 100)
    assert here.noise is not None
    assert here.noise.shape == (16 * masked * 2, 320)


def lead_masks(n: int) -> np.ndarray:
    """Return the masks of both segments of so many records, (record, segment, lead)."""
    task = read_section("task", TaskParams, PARAMS_FILE)
    draws = [lead_mask_of(task, 1, 1, f"a/{i}", k, 12) for i in range(n) for k in (0, 1)]
    return np.array(draws).reshape(n, 2, 12)


def test_lead_masks_are_the_originals_and_each_segment_has_its_own() -> None:
    there = REFERENCE["random_leads_masking_p0.5"]
    here = lead_masks(4000)
    n = 2 * len(here)
    counts = np.bincount(here.sum(axis=2).ravel(), minlength=13) / n
    for found, expected in zip(counts, there["dist_n_masked"], strict=True):
        deviation = math.sqrt(expected * (1 - expected))
        assert found == pytest.approx(expected, abs=both(deviation, n, there["N"]))
    by_lead = here.mean(axis=(0, 1))
    assert (np.abs(by_lead - there["per_lead_prob"]) <= both(0.5, n, there["N"])).all()
    same = (here[:, 0] == here[:, 1]).mean()
    assert same == pytest.approx(0.5, abs=ERRORS * 0.5 / math.sqrt(len(here) * 12))
    neighbours = (here[..., 1:] == here[..., :-1]).mean()
    assert neighbours == pytest.approx(0.5, abs=ERRORS * 0.5 / math.sqrt(n * 11))


def test_negatives_are_the_originals() -> None:
    there = REFERENCE["negatives"]
    rows, masked, n = there["B"], there["num_masked"], there["n_negatives"]
    drawn = np.stack(
        [
            draw_negatives(torch.Generator().manual_seed(s), rows, masked, n).numpy()
            for s in range(40)
        ]
    )
    own = np.arange(masked)[None, None, :, None]
    assert (drawn != own).all()
    assert drawn.min() == 0
    assert drawn.max() == masked - 1
    ordered = np.sort(drawn, axis=-1)
    unique = 1 + (np.diff(ordered, axis=-1) != 0).sum(axis=-1)
    assert unique.mean() == pytest.approx(there["unique_per_100_mean"], abs=0.1)
    counts = np.bincount(drawn.ravel(), minlength=masked)
    expected = drawn.size / masked
    assert (np.abs(counts - expected) <= ERRORS * math.sqrt(expected)).all()


def test_a_batch_of_pairs_is_laid_out_as_the_originals(tmp_path: Path) -> None:
    there = REFERENCE["cmsc_batch_of_4_rows"]
    recordings = pd.DataFrame(
        {"source": "a", "record_id": [f"r{i}" for i in range(4)], "segments": [2, 3, 2, 5]}
    )
    writer = create_segments(tmp_path / "s", recordings, fs=500, n_samples=2500)
    for number, count in enumerate(recordings["segments"]):
        signal = np.ones((12, 2500 * count), np.int16)
        writer.write(number, signal, np.ones(12, np.float32))
    writer.close()
    store = open_segments(tmp_path / "s")
    task = read_section("task", TaskParams, PARAMS_FILE)
    pairs = pair_segments(store.index.assign(row=np.arange(len(store))))
    first_of_each = pairs[np.unique(store.index["record_id"].to_numpy()[pairs[:, 0]], True)[1]]
    reader = SegmentBatches(store, None, None, task, seed=1)
    batch = reader.read(first_of_each.ravel(), epoch=1)
    assert list(batch.source.shape) == there["source_shape"]
    assert batch.segment.tolist() == there["segment"]
    equal = batch.recording[:, None] == batch.recording[None, :]
    patients = torch.tensor(there["patient_id"])
    assert torch.equal(equal, patients[:, None] == patients[None, :])
    assert batch.padding is None
    kept = (batch.source != 0).any(dim=2).sum(dim=1).tolist()
    assert len(set(kept)) > 1


def assert_drawn_alike(name: str, parameter: nn.Parameter, there: dict[str, Any]) -> None:
    values = parameter.detach().double()
    n = values.numel()
    mean, deviation = values.mean().item(), values.std(correction=0).item()
    assert list(values.shape) == there["shape"], name
    if there["std"] == 0:
        assert values.min().item() == there["min"], name
        assert values.max().item() == there["max"], name
        return
    # theirs is the mean over three seeds
    assert mean == pytest.approx(there["mean"], abs=both(there["std"], n, 3 * n)), name
    # a deviation of n normal values is known to 1 part in sqrt(2 n)
    allowed = max(1e-6, ERRORS * math.sqrt(1 / n))
    assert deviation == pytest.approx(there["std"], rel=allowed), name
    width = there["max"] - there["min"]
    assert values.min().item() >= there["min"] - 0.4 * width, name
    assert values.max().item() <= there["max"] + 0.4 * width, name
    assert values.max().item() - values.min().item() >= 0.6 * width, name


def test_first_weights_of_every_parameter_are_the_originals() -> None:
    model = build_pretraining(BASE, common(1))
    assert set(dict(model.named_parameters())) == set(FIRST_WEIGHTS["base"])
    for name, parameter in model.named_parameters():
        assert_drawn_alike(name, parameter, FIRST_WEIGHTS["base"][name])


def test_first_weights_of_the_classifiers_last_layer_are_the_originals() -> None:
    torch.manual_seed(3)
    one_layer = BASE.model_copy(update={"encoder_layers": 1})
    classifier = Classifier(Encoder(one_layer), 26, 0.0)
    for name, there in FIRST_WEIGHTS["finetune_proj"].items():
        assert_drawn_alike(name, classifier.get_parameter(name), there)


def test_another_seed_gives_other_first_weights_and_the_same_seed_the_same() -> None:
    small = BASE.model_copy(update={"encoder_layers": 1})
    first, again, other = (
        build_pretraining(small, common(seed)).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["final_proj.weight"], other["final_proj.weight"])


def on_no_device(params: ModelParams, classes: int | None) -> nn.Module:
    """Return a model whose tensors have shapes and no numbers."""
    with torch.device("meta"):
        return (
            Wav2Vec2CMSC(params) if classes is None else Classifier(Encoder(params), classes, 0.0)
        )


@pytest.mark.parametrize(
    ("layers", "classes", "expected"),
    [(12, None, 90_883_072), (8, None, 62_531_584), (12, 26, 90_393_242)],
)
def test_models_have_as_many_parameters_as_the_originals(
    layers: int, classes: int | None, expected: int
) -> None:
    model = on_no_device(BASE.model_copy(update={"encoder_layers": layers}), classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_tensors_have_the_originals_names_and_shapes() -> None:
    for layers in (12, SHAPES["small_encoder_layers"]):
        model = on_no_device(BASE.model_copy(update={"encoder_layers": layers}), None)
        found = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
        expected = {
            name: shape
            for name, shape in SHAPES["state_dict_keys"].items()
            if not name.startswith("encoder.layers.") or int(name.split(".")[2]) < layers
        }
        assert found == expected
