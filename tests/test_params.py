"""params.yaml is read as DVC reads it, and every mistake in it is named."""

import re
from pathlib import Path
from typing import Literal

import pytest
from dvc.utils.serialize import load_yaml
from pydantic import Field

from ecg_core.params import BadParams, Section, read_section, read_yaml, refuse_sections
from stages.check import SECTIONS

PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"


class Example(Section):
    """A section with one key of each kind."""

    epochs: int = Field(ge=1)
    rate: float
    mode: Literal["fast", "slow"]
    sizes: tuple[int, ...]
    limit: int | None


GOOD = "example: {epochs: 3, rate: 5e-5, mode: fast, sizes: [1, 2], limit: null}\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


def test_a_number_without_a_point_is_a_number_as_for_dvc(tmp_path: Path) -> None:
    assert read_section("example", Example, write(tmp_path, GOOD)).rate == 5e-5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("epochs: many", "example.epochs: expected an integer of at least 1, found 'many'"),
        ("epochs: 0", "example.epochs: expected an integer of at least 1, found 0"),
        ("epochs: true", "example.epochs: expected an integer of at least 1, found True"),
        ("epochs: 2.5", "example.epochs: expected an integer of at least 1, found 2.5"),
        ("epochs: '3'", "example.epochs: expected an integer of at least 1, found '3'"),
        ("mode: quick", "example.mode: expected one of 'fast', 'slow', found 'quick'"),
        ("limit: soon", "example.limit: expected an integer or null, found 'soon'"),
        ("rate: off", "example.rate: expected a number, found 'off'"),
    ],
)
def test_a_wrong_value_is_refused_by_key_expected_and_found(
    tmp_path: Path, wrong: str, message: str
) -> None:
    key = wrong.split(":")[0]
    text = re.sub(rf"{key}: [^,}}]+", wrong, GOOD)
    with pytest.raises(BadParams, match=re.escape(message)):
        read_section("example", Example, write(tmp_path, text))


def test_a_misspelt_key_is_refused_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match=r"example\.epoch: unknown key, expected 'epochs'\?"):
        read_section("example", Example, write(tmp_path, GOOD.replace("epochs", "epoch")))


def test_a_missing_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match=r"example\.limit: expected a value, found no such key"):
        read_section("example", Example, write(tmp_path, GOOD.replace(", limit: null", "")))


def test_an_unknown_section_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "exmaple: {}\n")
    with pytest.raises(BadParams, match="exmaple: unknown section"):
        refuse_sections({"example": Example}, path)


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2\n", "- 1\n"])
def test_what_is_no_yaml_mapping_is_refused_with_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadParams, match=r"params\.yaml"):
        read_yaml(write(tmp_path, text))


def test_dvc_reads_the_same_values_from_params_yaml() -> None:
    assert read_yaml(PARAMS) == load_yaml(str(PARAMS))


def test_the_projects_own_params_are_valid_and_complete() -> None:
    assert list(read_yaml(PARAMS)) == list(SECTIONS)
    refuse_sections(SECTIONS, PARAMS)


REPORT = {
    "task": {
        "_name": "ecg_pretraining",
        "data": None,
        "perturbation_mode": ["random_leads_masking"],
        "p": [1.0],
        "mask_leads_selection": "random",
        "mask_leads_prob": 0.5,
        "normalize": False,
        "enable_padding": True,
        "enable_padding_leads": True,
        "leads_to_load": list(range(12)),
    },
    "dataset": {
        "num_workers": 1,
        "max_tokens": None,
        "batch_size": 16,
        "valid_subset": "",
        "disable_validation": True,
    },
    "distributed_training": {"distributed_world_size": 1},
    "criterion": {
        "_name": "wav2vec2_with_cmsc",
        "infonce": True,
        "log_keys": ["prob_perplexity", "code_perplexity", "temp"],
        "loss_weights": [0.1, 10],
    },
    "optimization": {"max_epoch": 55, "update_freq": [2]},
    "finetune": {"max_epoch": 25, "leads_to_load": None},
}
"""The report's "Pretrain config"; lr is another at demo scale, a list in quotes is a list, and
`data: ???` is null."""


@pytest.mark.parametrize("section", REPORT)
def test_params_yaml_holds_the_reports_configuration(section: str) -> None:
    found = read_yaml(PARAMS)[section]
    assert {key: found[key] for key in REPORT[section]} == REPORT[section]


UNSUPPORTED = {
    "task.normalize": True,
    "task.enable_padding": False,
    "task.mask_leads_selection": "conditional",
    "task.perturbation_mode": ["emg_noise"],
    "task.data": "/somewhere",
    "dataset.max_tokens": 1000,
    "dataset.valid_subset": "valid",
    "dataset.disable_validation": False,
    "criterion.infonce": False,
    "criterion.log_keys": ["temp"],
    "model.layer_norm_first": True,
    "model.no_mask_overlap": True,
    "model.mask_channel_prob": 0.1,
    "model.quantize_input": True,
    "model.cross_sample_negatives": 10,
    "common.fp16": True,
    "optimizer._name": "sgd",
    "lr_scheduler._name": "step",
    "model.conv_feature_layers": "[(256, 2, 2)] * 4",
    "task.leads_to_load": ["V7"],
    "model.encoder_attention_heads": 5,
}


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_a_value_that_is_not_supported_is_refused_by_name(tmp_path: Path, key: str) -> None:
    from ruamel.yaml import YAML

    tree = read_yaml(PARAMS)
    section, name = key.split(".")
    tree[section][name] = UNSUPPORTED[key]
    path = tmp_path / "params.yaml"
    YAML().dump(tree, path)
    with pytest.raises(BadParams, match=rf"{section}.*{name}|{name}"):
        read_section(section, SECTIONS[section], path)
