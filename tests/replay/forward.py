"""c1: every stage of the forward pass."""

import re

import numpy as np
import torch
from torch import Tensor, nn

from ecg_core.models.wav2vec2_cmsc import Wav2Vec2CMSC
from tests.replay.comparison import FORWARD, Comparison
from tests.replay.fixtures import CannotReplay, Fixtures

INPUTS = {"nopad": "x", "leadmasked": "x_leadmasked", "pad": "x_pad"}


def replay_forward(stem: str, fixtures: Fixtures, table: Comparison) -> None:
    """Run the encoder on the first rows and compare what each of its modules returns."""
    expected = fixtures.arrays(f"{stem}.npz")
    given = {name: expected.pop(name) for name in ("source", "padding_mask") if name in expected}
    source, padding = _input(stem, fixtures, given)
    rows = len(next(iter(expected.values())))
    model = fixtures.model({}).eval()
    stages = run_stages(model, source[:rows], None if padding is None else padding[:rows])
    for name, array in expected.items():
        if name not in stages:
            table.skip(name)
        elif array.dtype == bool:
            table.exact(name, stages[name], array)
        else:
            table.close(name, stages[name], array, absolute=FORWARD)


def _input(
    stem: str, fixtures: Fixtures, given: dict[str, np.ndarray]
) -> tuple[Tensor, Tensor | None]:
    inputs = fixtures.inputs()
    tag = stem.removeprefix("c1_forward_")
    if "source" not in given and tag not in INPUTS:
        raise CannotReplay(f"expected its own source, or one of {', '.join(INPUTS)}, found {tag}")
    source = given["source"] if "source" in given else inputs[INPUTS[tag]]
    padding = given.get("padding_mask")
    if padding is None and tag == "pad":
        padding = sample_padding(inputs["pad_lens"], source.shape)
    return torch.from_numpy(source), None if padding is None else torch.from_numpy(padding)


def sample_padding(lengths: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return which samples are padding, the same for all leads."""
    beyond = np.arange(shape[-1])[None, None, :] >= lengths[:, None, None]
    return np.broadcast_to(beyond, shape).copy()


def run_stages(model: Wav2Vec2CMSC, source: Tensor, padding: Tensor | None) -> dict[str, Tensor]:
    """Return what each module gave, under the fixtures' names."""
    stages: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            stages[name] = output.detach()

        module.register_forward_hook(hook)

    for number, block in enumerate(model.feature_extractor.conv_layers):
        keep(f"conv{number}_BCT", block)
    keep("layer_norm_BTC", model.layer_norm)
    keep("post_extract_proj_BTC", model.post_extract_proj)
    keep("conv_pos_BTC", model.conv_pos)
    keep("encoder_input_ln_BTC", model.encoder.layer_norm)
    for number, layer in enumerate(model.encoder.layers):
        keep(f"layer{number}_BTC", layer)
    with torch.no_grad():
        frames, frame_padding = model.represent(source, padding)
    stages["final_BTC"] = frames
    if frame_padding is not None:
        stages["padding_mask_BT"] = frame_padding
    return stages


def is_forward(name: str) -> bool:
    """Return whether a file is a fixture of this kind."""
    return re.fullmatch(r"c1_forward_\w+\.npz", name) is not None
