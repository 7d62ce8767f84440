"""docs/cost.md: its table is what the formulas give, and the formulas are what the code does."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cost, step
from benchmarks.estimate import read_configuration
from ecg_core.models.wav2vec2_cmsc import build_pretraining
from ecg_core.segments import create_segments
from ecg_core.training.optimizer import adam
from tests.sharded import cut_into_shards


@pytest.fixture(autouse=True)
def _root(monkeypatch):
    monkeypatch.chdir(cost.ROOT)


def _value(what):
    """Return the number of a line of the page."""
    match = re.search(
        rf"^\| {re.escape(what)} \|.*\| ([\d,.]+)[^|]*\|$", cost.PAGE.read_text(), re.M
    )
    return float(match[1].replace(",", ""))


def test_the_page_holds_what_the_formulas_give():
    text = cost.PAGE.read_text()
    assert cost.page_with(text, cost.table()) == text, "run python -m benchmarks.cost --write"


def test_every_measured_number_names_ten_million_or_says_that_it_was_scaled():
    measured = json.loads((cost.ROOT / cost.OUT).read_text())
    assert measured["index"]["recordings"] == cost.RECORDINGS
    assert measured["command"] == "python -m benchmarks.index"
    assert "in proportion" in cost.PAGE.read_text()


def test_values_calculated_by_hand_stand_in_the_page():
    # 1e7 recordings of 10 s: 2e7 segments of 12 x 2500 x 2 = 6e4 bytes
    assert _value("store") == 1.2
    assert _value("shards") == -(-20_000_000 // 8192)
    # 128 pairs x 4 devices x 2 in turn = 1024 pairs an update
    assert _value("updates an epoch") == -(-10_000_000 // 1024)
    # 90 883 072 parameters (method.md 2.10), 4 bytes each, 12 with two moments
    assert _value("a model") == 364
    assert _value("a state") == 1.09
    # 312e12 x 0.3 / 87.7e9 a second
    assert _value("segments a second and GPU, bf16") == pytest.approx(1067, abs=1)
    assert _value("GPU-hours an epoch, bf16") == pytest.approx(2e7 / 1067 / 3600, abs=0.1)


@pytest.mark.parametrize("n_samples", [10, 2500])
def test_a_store_takes_what_the_page_says(tmp_path, n_samples):
    table = pd.DataFrame({"source": "a", "record_id": ["1", "2", "3"], "segments": 2})
    writer = create_segments(tmp_path / "s", table, fs=500, n_samples=n_samples)
    for number in range(3):
        writer.write(number, np.ones((12, 2 * n_samples), np.int16), np.ones(12, np.float32))
    writer.close()
    cut_into_shards(tmp_path / "s", 4)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "s").glob("*.i16"))]
    assert sizes == [4 * cost.segment_bytes(n_samples), 2 * cost.segment_bytes(n_samples)]
    assert (tmp_path / "s/gains.f32").stat().st_size == 3 * 48


@pytest.mark.parametrize(
    ("changes", "close"),
    [
        ({}, 0.05),
        ({"encoder_embed_dim": 256, "encoder_ffn_embed_dim": 1024, "encoder_layers": 3}, 0.01),
    ],
    ids=["demo", "wider, where the heads weigh less"],
)
def test_the_arithmetic_of_a_segment_is_what_torch_counts(changes, close):
    """Of the textbook step's forward pass, and of matrix products in its backward pass.

    torch counts a grouped convolution's backward pass as if it had one group: that is left out.
    """
    params = step.parameters("demo")
    params["model"] |= changes
    one = step.textbook_step("pretrain", params, step.made_up_batch(2))
    with FlopCounterMode(display=False) as counter:
        one()
    counts = {str(name): n for name, n in counter.get_flop_counts()["Global"].items()}
    forward = counts["aten.convolution"] + counts["aten.addmm"] + counts["aten.bmm"] / 3
    model = step.section(params, "model", step.ModelParams)
    assert 4 * cost.forward_flop(model, step.SAMPLES) == pytest.approx(forward, rel=close)
    assert counts["aten.mm"] == pytest.approx(2 * counts["aten.addmm"], rel=0.01)


def test_a_state_holds_twelve_bytes_a_parameter(tmp_path):
    config = read_configuration("")
    model = build_pretraining(config.model, config.common)
    optimizer = adam(model.parameters(), config.optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.0)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, tmp_path / "state.pt")
    own = 12 * sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "state.pt").stat().st_size == pytest.approx(own, rel=0.05)
