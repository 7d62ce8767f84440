"""Checkpoints: what goes in comes out, and nothing fits by accident."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ecg_core.models.model_file import BadCheckpoint, load_exactly, read_model, save_model


def layer(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


def test_a_model_comes_back_with_its_kind_and_parameters(tmp_path: Path) -> None:
    save_model(tmp_path / "deep" / "m", "pretrained", {"a": 1, "b": [2.5]}, layer())
    stored = read_model(tmp_path / "deep" / "m")
    assert (stored.kind, stored.params) == ("pretrained", {"a": 1, "b": [2.5]})
    assert torch.equal(stored.tensors["weight"], layer().state_dict()["weight"])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["m"]


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    save_model(tmp_path / "a", "x", {"p": 1, "q": 2}, layer())
    save_model(tmp_path / "b", "x", {"q": 2, "p": 1}, layer())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_only_a_whole_file_of_ours_is_read(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="found no such file"):
        read_model(tmp_path / "none")
    save_model(tmp_path / "m", "x", {}, layer())
    whole = (tmp_path / "m").read_bytes()
    for size in (0, 5, 60, len(whole) - 1):
        (tmp_path / "m").write_bytes(whole[:size])
        with pytest.raises(BadCheckpoint, match="expected a whole safetensors file"):
            read_model(tmp_path / "m")
    save_file({"weight": torch.ones(1)}, tmp_path / "n")
    with pytest.raises(BadCheckpoint, match="expected the model's parameters"):
        read_model(tmp_path / "n")
    for text in ("{", "[]", "{}"):
        save_file({"weight": torch.ones(1)}, tmp_path / "n", metadata={"model": text})
        with pytest.raises(BadCheckpoint, match="expected kind and params"):
            read_model(tmp_path / "n")


def test_every_tensor_that_does_not_fit_is_named() -> None:
    module = nn.Sequential(layer(), layer())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    tensors = {"0.weight": torch.ones(2, 4), "0.bias": torch.ones(2), "2.bias": torch.ones(7)}
    with pytest.raises(BadCheckpoint) as raised:
        load_exactly(module, tensors, Path("m"))
    line = str(raised.value)
    assert line.startswith("m: 4 tensors do not fit the model: ")
    for part in (
        "missing 1.weight (2, 3)",
        "missing 1.bias (2,)",
        "extra 2.bias (7,)",
        "0.weight: expected (2, 3), found (2, 4)",
    ):
        assert part in line
    assert all(torch.equal(module.state_dict()[name], before[name]) for name in before)


def test_loading_says_how_much_was_taken(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        load_exactly(layer(1), layer(0).state_dict(), Path("m"))
    assert "m: loaded 2 tensors, 8 parameters" in caplog.text
