"""The table of the original's quirks: whole, and true to its words."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ecg_core.batches.augment import TaskParams
from ecg_core.batches.dataset import Batch, DatasetParams, SegmentBatches
from ecg_core.device import CommonParams
from ecg_core.manifest import label_matrix
from ecg_core.models.encoder import Encoder
from ecg_core.params import BadParams, Section, parse_section, read_yaml
from ecg_core.segments import create_segments, open_segments
from ecg_core.training.objectives import ClassifyObjective
from ecg_core.training.optimizer import scale_and_clip
from tests.models.tiny import tiny_params

ROOT = Path(__file__).parents[1]
PARAMS_FILE = ROOT / "params.yaml"
ROWS = re.findall(r"^\| (Q\d+) \|(.*)\|(.*)\|(.*)\| `(.*)` \|$", (ROOT / "docs/quirks.md").read_text(), re.M)  # fmt: skip # noqa: E501


def test_all_thirty_have_a_row_with_a_decision() -> None:
    assert [row[0] for row in ROWS] == [f"Q{number}" for number in range(1, 31)]
    decisions = ("kept", "corrected", "not carried over", "both")
    assert all(row[2].strip().startswith(decisions) for row in ROWS)


@pytest.mark.parametrize("quirk", [row[0] for row in ROWS])
def test_what_holds_a_decision_exists(quirk: str) -> None:
    [named] = [row[4] for row in ROWS if row[0] == quirk]
    file, name = named.split("::")
    assert f"def {name}(" in (ROOT / file).read_text()


def test_what_is_corrected_names_a_parameter_and_nothing_else_does() -> None:
    for quirk, _, decision, parameter, _ in ROWS:
        assert decision.strip().startswith("corrected") == bool(parameter.strip()), quirk


def test_parameters_that_bring_a_quirk_back_exist_and_are_off() -> None:
    tree = read_yaml(PARAMS_FILE)
    found = [re.fullmatch(r" `(\w+)\.(\w+): (\w+)` ", row[3]) for row in ROWS if row[3].strip()]
    for match in found:
        assert match is not None
        section, key, value = match.groups()
        assert str(tree[section][key]).lower() != value


def with_values(name: str, model: type[Section], **changes: Any) -> Section:
    values = {**read_yaml(PARAMS_FILE)[name], **changes}
    return parse_section(name, values, model, PARAMS_FILE)


def test_lead_masking_is_random_or_refused() -> None:
    with pytest.raises(BadParams, match=r"task\.mask_leads_selection: expected 'random'"):
        with_values("task", TaskParams, mask_leads_selection="conditional")


def test_other_augmentations_are_refused() -> None:
    for name in ("powerline_noise", "baseline_shift", "baseline_wander", "emg_noise", "3kg"):
        with pytest.raises(BadParams, match=r"task\.perturbation_mode"):
            with_values("task", TaskParams, perturbation_mode=[name])


def test_options_that_crashed_are_refused() -> None:
    with pytest.raises(BadParams, match=r"dataset\.max_tokens"):
        with_values("dataset", DatasetParams, max_tokens=4)
    with pytest.raises(BadParams, match=r"dataset\.num_batch_buckets: unknown key"):
        with_values("dataset", DatasetParams, num_batch_buckets=4)
    with pytest.raises(BadParams, match=r"common\.fp16"):
        with_values("common", CommonParams, fp16=True)


def test_a_record_without_scored_label_has_all_labels_0() -> None:
    assert not label_matrix(pd.DataFrame({"classes": ["", ""]})).any()


def test_evaluation_takes_segments_in_their_order_in_batches_of_one_size(tmp_path: Path) -> None:
    """What fixes the batches that model.attend_across: batch makes scores depend on (Q1)."""
    recordings = pd.DataFrame({"source": ["a"], "record_id": ["r"], "segments": [7]})
    writer = create_segments(tmp_path / "s", recordings, fs=500, n_samples=20)
    writer.write(0, np.ones((12, 140), np.int16), np.ones(12, np.float32))
    writer.close()
    reader = SegmentBatches(open_segments(tmp_path / "s"), None, None, None, seed=1)
    rows = np.array([4, 2, 6, 0, 1])
    for _ in range(2):
        found = [batch.names for batch in reader.in_turn(rows, 2)]
        assert found == [("a/r:4", "a/r:2"), ("a/r:6", "a/r:0"), ("a/r:1",)]


def labelled(labels: torch.Tensor) -> Batch:
    rows = len(labels)
    return Batch(
        source=torch.randn(rows, 12, 160),
        recording=torch.arange(rows),
        segment=torch.zeros(rows, dtype=torch.int64),
        labels=labels,
        names=("",) * rows,
    )


def test_the_divisor_scales_the_gradient_and_history_has_both_losses() -> None:
    """finetune.normalize_loss_by (Q6): the gradient is longer by labels per positive one."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy((rng.random((6, 26)) < 0.1).astype(np.float32))
    labels[0, 0] = 1.0
    batch, entries, positives = labelled(labels), 6 * 26, float(labels.sum())
    norms, histories, total = {}, {}, 0.0
    for normalize_by in ("labels", "positives"):
        torch.manual_seed(0)
        model = torch.nn.Sequential(Encoder(tiny_params()), torch.nn.Linear(12, 26))
        objective = ClassifyObjective(lambda b, u, m=model: m(b.source), normalize_by, None)
        result = objective(batch, 0, 0)
        result.total.backward()
        norms[normalize_by] = scale_and_clip(model.parameters(), result.sample_size, 0.0)
        sums = {name: float(value) for name, value in result.sums.items()}
        histories[normalize_by] = objective.summarise(sums)
        total = result.total.item()
    ratio = norms["positives"] / norms["labels"]
    assert ratio == pytest.approx(entries / positives, rel=1e-5)
    assert histories["labels"] == histories["positives"]
    expected = total / math.log(2)
    assert histories["labels"]["train_loss"] == pytest.approx(expected / entries)
    assert histories["labels"]["train_loss_per_positive"] == pytest.approx(expected / positives)


def test_a_batch_without_positive_labels_has_no_divisor_of_its_own() -> None:
    """The loop then divides by 1, as the original does (method.md 3.5)."""
    objective = ClassifyObjective(lambda b, u: torch.zeros(2, 26), "positives", None)
    assert objective(labelled(torch.zeros(2, 26)), 0, 0).sample_size == 0.0
