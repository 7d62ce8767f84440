"""Checkpoints of the public code: in, out, and every kind of bad one."""

import hashlib
import json
import os
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ecg_core.classes import CLASSES
from ecg_core.models.classifier import Classifier, load_classifier, save_classifier
from ecg_core.models.encoder import Encoder, load_encoder
from ecg_core.models.fairseq_checkpoint import (
    export,
    import_finetuned,
    import_pretrained,
    main,
)
from ecg_core.models.fairseq_config import (
    exported_config,
    format_conv_layers,
    parse_conv_layers,
    pretraining_params,
    template,
)
from ecg_core.models.model_file import BadCheckpoint, read_model
from ecg_core.models.wav2vec2_cmsc import Wav2Vec2CMSC, save_pretraining
from tests.replay.fixtures import OWN

ORIGINAL = OWN / "tiny_pretrain_ckpt.pt"
G, V = "conv_pos.pos_conv.0.weight_g", "conv_pos.pos_conv.0.weight_v"
NEW_G = "conv_pos.pos_conv.0.parametrizations.weight.original0"
NEW_V = "conv_pos.pos_conv.0.parametrizations.weight.original1"
CONFIG = json.loads((OWN / "tiny_pretrain_cfg.json").read_text())


def original() -> dict[str, Any]:
    return dict(torch.load(ORIGINAL, weights_only=True))


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Return the original's checkpoint with one thing changed."""
    content = original()
    change(content)
    path = tmp_path / "changed.pt"
    torch.save(content, path)
    return path


def finetuned_original(tmp_path: Path, **model: Any) -> Path:
    """Return a finetuned checkpoint as the original would write it."""
    config = json.loads((OWN / "tiny_finetune_cfg.json").read_text())
    config["model"] |= model
    with np.load(OWN / "c3_classifier_state_dict.npz") as archive:
        tensors = {name: torch.from_numpy(archive[name]) for name in archive}
    path = tmp_path / "finetuned.pt"
    torch.save({**original(), "cfg": config, "model": tensors}, path)
    return path


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_importing_takes_every_tensor_as_it_is_and_says_how_many(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        import_pretrained(ORIGINAL, tmp_path / "model.safetensors")
    stored = read_model(tmp_path / "model.safetensors")
    assert stored.kind == "pretrained"
    assert_same(stored.tensors, original()["model"])
    assert "loaded 55 tensors, 97848 parameters" in caplog.text
    assert load_encoder(tmp_path / "model.safetensors").params.encoder_layers == 2


def test_dimensions_are_those_of_the_checkpoints_own_configuration(tmp_path: Path) -> None:
    import_pretrained(ORIGINAL, tmp_path / "model.safetensors")
    params = read_model(tmp_path / "model.safetensors").params
    same = set(CONFIG["model"]) & set(params) - {"conv_feature_layers"}
    assert {key: params[key] for key in same} == {key: CONFIG["model"][key] for key in same}
    assert params["conv_feature_layers"] == [[32, 2, 2]] * 4


def test_names_of_the_weight_norm_before_2025_are_understood(tmp_path: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        model = content["model"]
        model[G], model[V] = model.pop(NEW_G), model.pop(NEW_V)

    import_pretrained(changed(tmp_path, rename), tmp_path / "model.safetensors")
    assert_same(read_model(tmp_path / "model.safetensors").tensors, original()["model"])


def test_a_checkpoint_that_went_out_and_in_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    import_pretrained(ORIGINAL, tmp_path / "a.safetensors")
    export(tmp_path / "a.safetensors", tmp_path / "b.pt")
    import_pretrained(tmp_path / "b.pt", tmp_path / "c.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()
    there, back = original(), torch.load(tmp_path / "b.pt", weights_only=True)
    assert list(there) == list(back)
    assert list(there["model"]) == list(back["model"])
    assert_same(back["model"], there["model"])


def test_an_exported_configuration_has_all_keys_of_the_original(tmp_path: Path) -> None:
    import_pretrained(ORIGINAL, tmp_path / "a.safetensors")
    export(tmp_path / "a.safetensors", tmp_path / "b.pt")
    config = torch.load(tmp_path / "b.pt", weights_only=True)["cfg"]
    assert {name: set(section) for name, section in config.items()} == {
        name: set(section) for name, section in CONFIG.items()
    }
    assert {**config["model"], "data": None} == {**CONFIG["model"], "data": None}


def test_our_own_checkpoint_may_be_imported_too(tmp_path: Path) -> None:
    import_pretrained(ORIGINAL, tmp_path / "a.safetensors")
    import_pretrained(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_numbers_of_numpy_among_the_training_state_are_no_obstacle(tmp_path: Path) -> None:
    def add_metrics(content: dict[str, Any]) -> None:
        content["extra_state"] |= {"best": np.float64(0.7), "n": np.int64(3), "f": np.float32(1)}

    import_pretrained(changed(tmp_path, add_metrics), tmp_path / "model.safetensors")


def test_a_finetuned_checkpoint_of_the_original_answers_as_there(tmp_path: Path) -> None:
    import_finetuned(finetuned_original(tmp_path), tmp_path / "model.safetensors")
    classifier = load_classifier(tmp_path / "model.safetensors", "cpu")
    with np.load(OWN / "c3_classifier.npz") as archive:
        expected = torch.from_numpy(archive["all12/logits"])
    with np.load(OWN / "tiny_inputs.npz") as archive:
        source = torch.from_numpy(archive["x"])
    with torch.no_grad():
        torch.testing.assert_close(classifier(source), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("args", [None, {"model": CONFIG["model"], "task": CONFIG["task"]}])
def test_a_finetuned_models_depth_is_its_pretrained_models(tmp_path: Path, args: Any) -> None:
    path = finetuned_original(tmp_path, encoder_layers=12, args=args)
    import_finetuned(path, tmp_path / "model.safetensors")
    assert load_encoder(tmp_path / "model.safetensors").params.encoder_layers == 2


def test_a_finetuned_classifier_goes_out_and_in_bit_for_bit(tmp_path: Path) -> None:
    import_finetuned(finetuned_original(tmp_path), tmp_path / "a.safetensors")
    export(tmp_path / "a.safetensors", tmp_path / "b.pt")
    import_finetuned(tmp_path / "b.pt", tmp_path / "c.safetensors")
    there, back = read_model(tmp_path / "a.safetensors"), read_model(tmp_path / "c.safetensors")
    assert_same(back.tensors, there.tensors)
    exported = torch.load(tmp_path / "b.pt", weights_only=True)
    assert set(exported["cfg"]["model"]) == set(template("finetuning")["model"])
    assert exported["cfg"]["model"]["num_labels"] == len(CLASSES)


class RunsCode:
    """What a hostile pickle holds: a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_code_is_refused_and_nothing_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"

    def arm(content: dict[str, Any]) -> None:
        content["extra_state"]["x"] = RunsCode(trap)

    with pytest.raises(BadCheckpoint, match=r"found a call of posix\.mkdir; nothing was executed"):
        import_pretrained(changed(tmp_path, arm), tmp_path / "model.safetensors")
    bare = tmp_path / "bare.pt"
    bare.write_bytes(pickle.dumps(RunsCode(trap)))
    with pytest.raises(BadCheckpoint, match="found a bare pickle"):
        import_pretrained(bare, tmp_path / "model.safetensors")
    assert not trap.exists()
    assert not (tmp_path / "model.safetensors").exists()


def drop(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["model"].pop(name)


def put(name: str, tensor: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["model"].update({name: tensor})


def configure(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["cfg"]["model"].update(values)


BAD: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a tensor is missing": (
        drop("final_proj.bias"),
        r"1 tensors .*missing final_proj.bias \(32,\)",
    ),
    "a tensor is extra": (put("more", torch.ones(3)), r"1 tensors .*extra more \(3,\)"),
    "a tensor has another shape": (
        put("mask_emb", torch.ones(63)),
        r"1 tensors .*mask_emb: expected \(64,\), found \(63,\)",
    ),
    "a tensor is no tensor": (
        put("mask_emb", 3),
        "mask_emb: expected a tensor of floats, found int",
    ),
    "a tensor without numbers": (
        put("mask_emb", torch.ones(64, device="meta")),
        "mask_emb: expected a tensor of floats",
    ),
    "a tensor of whole numbers": (put("mask_emb", torch.ones(64).int()), "found torch.int32"),
    "both names of the weight norm": (put(G, torch.ones(1, 1, 16)), "under both of its names"),
    "deeper than it says": (
        configure(encoder_layers=1),
        r"expected tensors of 1 encoder layers, .* found 2; 16 tensors .*extra encoder.layers.1",
    ),
    "shallower than it says": (
        configure(encoder_layers=12),
        r"tensors of 12 encoder layers, .* found 2; 160 tensors .*missing encoder.layers.2",
    ),
    "another model": (
        configure(_name="m3ae"),
        "expected a model wav2vec2_cmsc or .*, found 'm3ae'",
    ),
    "normalised input": (configure(normalize=True), "normalize: expected false, found True"),
    "layers that are code": (
        configure(conv_feature_layers="__import__('os').abort()"),
        "conv_feature_layers: expected layers like",
    ),
    "a setting is missing": (
        lambda content: content["cfg"]["model"].pop("latent_vars"),
        "cfg.model.latent_vars: expected a value",
    ),
    "a setting of another kind": (configure(final_dim="many"), "cfg.model.final_dim: expected"),
    "no configuration": (lambda content: content.pop("cfg"), "expected the keys args, cfg, model"),
    "no sections": (lambda content: content.update(cfg=None), "expected a configuration"),
    "no tensors": (lambda content: content.update(model={}), "expected tensors by name"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_checkpoint_gives_one_clear_line(what: str, tmp_path: Path) -> None:
    change, message = BAD[what]
    path = changed(tmp_path, change)
    with pytest.raises(BadCheckpoint) as raised:
        import_pretrained(path, tmp_path / "model.safetensors")
    line = str(raised.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert re.search(message, line), line
    assert list(tmp_path.glob("model*")) == []


@pytest.mark.parametrize("kept", [0, 10, 5000, 415_000])
def test_a_truncated_checkpoint_is_refused(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "torn.pt"
    path.write_bytes(ORIGINAL.read_bytes()[:kept])
    with pytest.raises(BadCheckpoint, match="expected a whole"):
        import_pretrained(path, tmp_path / "model.safetensors")


def test_a_damaged_checkpoint_is_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    """A bit is turned in every part, weights too: nothing but checksums can see those."""
    whole, path = ORIGINAL.read_bytes(), tmp_path / "damaged.pt"
    parts = [place.start() for place in re.finditer(b"PK\x03\x04", whole)]
    for start in parts[:: len(parts) // 25]:
        size = int.from_bytes(whole[start + 18 : start + 22], "little")
        if size < 100:
            continue
        at = start + 200
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BadCheckpoint):
            import_pretrained(path, tmp_path / "model.safetensors")


def test_a_finetuned_checkpoint_is_no_pretrained_one_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    target = tmp_path / "model.safetensors"
    with pytest.raises(BadCheckpoint, match="a pretrained model, found a finetuned classifier"):
        import_pretrained(finetuned_original(tmp_path), target)
    with pytest.raises(BadCheckpoint, match="a finetuned classifier, found a pretrained model"):
        import_finetuned(ORIGINAL, target)
    params = pretraining_params(CONFIG, ORIGINAL)
    own = tmp_path / "own.safetensors"
    save_classifier(own, Classifier(Encoder(params), 26, 0.0))
    with pytest.raises(BadCheckpoint, match="a pretrained model, found a finetuned classifier"):
        import_pretrained(own, target)
    with pytest.raises(BadCheckpoint, match="expected a checkpoint, found no such file"):
        import_pretrained(tmp_path / "none.pt", target)
    assert not target.exists()


def test_other_labels_than_the_scored_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="expected the 26 scored classes, found 71"):
        import_finetuned(finetuned_original(tmp_path, num_labels=71), tmp_path / "m.safetensors")


def test_attention_across_the_batch_is_not_exported_as_what_it_is_not(tmp_path: Path) -> None:
    params = pretraining_params(CONFIG, ORIGINAL).model_copy(update={"attend_across": "batch"})
    save_pretraining(tmp_path / "a.safetensors", Wav2Vec2CMSC(params))
    with pytest.raises(BadCheckpoint, match="attend_across frames, found batch"):
        export(tmp_path / "a.safetensors", tmp_path / "b.pt")


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("[(256, 2, 2)] * 4", ((256, 2, 2),) * 4),
        (
            "[(512,10,5)]+[(512,3,2)]*2 + [(64, 2, 2)]",
            ((512, 10, 5), (512, 3, 2), (512, 3, 2), (64, 2, 2)),
        ),
        ("[(8, 2, 2), (16, 2, 2)]", ((8, 2, 2), (16, 2, 2))),
    ],
)
def test_layers_written_as_python_are_read_without_python(
    text: str, layers: tuple[tuple[int, int, int], ...]
) -> None:
    assert parse_conv_layers(text) == layers
    assert parse_conv_layers(format_conv_layers(layers)) == layers


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[(1, 2)]", "[(1, 2, 0)]", "[(1, 2, 3)] ** 9", "[(1,2,3)]*99999999", "4", "f()"],
)
def test_other_texts_for_layers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected layers"):
        parse_conv_layers(text)


def test_the_templates_are_the_originals_base_model() -> None:
    shapes = json.loads((OWN / "A_model_shapes.json").read_text())
    params = pretraining_params(template("pretraining"), OWN)
    with torch.device("meta"):
        model = Wav2Vec2CMSC(params)
    tensors = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert list(tensors.items()) == list(shapes["state_dict_keys"].items())
    assert exported_config("pretrained", params, 0) == template("pretraining")


def test_the_command_line_converts_in_both_directions_and_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["fairseq_checkpoint", *map(str, words)])
        main()

    run("import", ORIGINAL, tmp_path / "a.safetensors")
    run("export", tmp_path / "a.safetensors", tmp_path / "b.pt")
    run("import", tmp_path / "b.pt", tmp_path / "c.safetensors")
    run("import", finetuned_original(tmp_path), tmp_path / "d.safetensors")
    digests = [hashlib.sha256((tmp_path / f"{n}.safetensors").read_bytes()).digest() for n in "ac"]
    assert digests[0] == digests[1]
    assert read_model(tmp_path / "d.safetensors").kind == "classifier"
    with pytest.raises(SystemExit, match=r"^error: .*none: expected a checkpoint"):
        run("import", tmp_path / "none", tmp_path / "e.safetensors")
