"""The report's tables: texts from the stages' numbers."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ecg_core.dotted import flatten
from ecg_core.report_inputs import Inputs
from ecg_core.report_page import Table

FULL_RECORDS = 80_000
"""Kept records below which data are not PhysioNet's whole archives (88 253 in the Challenge's)."""

NONE = "–"
NOTHING, SINUS = "cinc_of_nothing_predicted", "cinc_of_sinus_for_everyone"
"""The scores of the two answers that need no model, as evaluate names them."""


def scale_of(inputs: Inputs) -> str:
    """Return FULL, REDUCED or DEMO SCALE, by the model's dimensions and the data."""
    report = inputs.published["parameters"]["report"]
    model = {key: value for key, value in report.items() if key.startswith("model.")}
    same_model = all(inputs.params.get(key) == value for key, value in model.items())
    if inputs.params["data.mirror"] == "embedded":
        return "DEMO SCALE"
    return "FULL SCALE" if same_model and len(inputs.manifest) >= FULL_RECORDS else "REDUCED SCALE"


def headline_table(inputs: Inputs) -> Table:
    """Return report / paper / this run, with the units, the data and the scale of each."""
    columns = (
        "quantity",
        "unit",
        "the report (full scale)",
        "the paper (full scale)",
        f"this run ({scale_of(inputs).lower()})",
    )
    mine = this_run(inputs)
    rows = [
        (row["what"], "", str(row["report"]), str(row["paper"]), setup)
        for row, setup in zip(inputs.published["setup"], _this_setup(inputs), strict=True)
    ]
    rows += [
        (row["what"], row["unit"], row["report"] or NONE, row["paper"] or NONE, mine[row["key"]])
        for row in inputs.published["results"]
    ]
    return Table(columns, tuple(rows))


def _this_setup(inputs: Inputs) -> list[str]:
    """Return this run's data, epochs, encoder, finetuning epochs and test set, in that order."""
    params, found = inputs.params, inputs.evaluate
    mirror = params["data.mirror"]
    origin = "the embedded sample" if mirror == "embedded" else mirror
    sources = inputs.manifest["source"].nunique()
    width = params["model.encoder_embed_dim"]
    imported = inputs.pretrain.empty
    return [
        f"{len(inputs.manifest)} recordings of {sources} sources, from {origin}",
        "imported checkpoint" if imported else str(inputs.pretrain["epoch"].iloc[-1]),
        f"{params['model.encoder_layers']} layers of {width}",
        str(inputs.finetune["epoch"].iloc[-1]),
        f"{found['recordings']} recordings of {found['patients']} patients, "
        f"{found['segments']} segments",
    ]


def this_run(inputs: Inputs) -> dict[str, str]:
    """Return this run's value, in words, for each key of the published results."""
    found, last = inputs.evaluate, inputs.finetune.iloc[-1]
    trained = not inputs.pretrain.empty
    one_lead = _unit(inputs.leads, "segment")
    one_lead = one_lead[one_lead["leads"] == 1] if not one_lead.empty else one_lead
    return {
        "pretrain_loss": f"{inputs.pretrain['loss'].iloc[-1]:.3f}" if trained else NONE,
        "pretrain_accuracy": f"{100 * inputs.pretrain['accuracy'].iloc[-1]:.1f}"
        if trained
        else NONE,
        "finetune_loss": f"{last['test_loss_per_positive']:.3f}",
        "cinc_segment": with_interval(found, "segment", "cinc_fixed"),
        "cinc_recording": with_interval(found, "recording", "cinc_fixed"),
        "cinc_nothing": number(found["recording"][NOTHING]),
        "cinc_sinus": number(found["recording"][SINUS]),
        "cinc_one_lead": _row_with_interval(one_lead, "cinc_fixed"),
        "identification": _identification(inputs.identify),
    }


def _identification(identify: Mapping[str, Any]) -> str:
    if not identify:
        return "not part of this pipeline"
    if not identify["patients"]:
        return "no patient is known to have two recordings"
    return f"{_percent(identify, 'top1')}, {identify['patients']:.0f} patients"


def _percent(identify: Mapping[Any, Any], name: str) -> str:
    if math.isnan(identify[name]):
        return NONE
    low, high = (100 * identify[end] for end in ends_of(name))
    return f"{100 * identify[name]:.1f} [{low:.1f}, {high:.1f}]"


def ends_of(name: str) -> tuple[str, str]:
    """Return the columns with the ends of a number's 95 % interval."""
    return f"{name}_low", f"{name}_high"


def with_interval(evaluate: Mapping[str, Any], unit: str, name: str) -> str:
    """Return a headline number, with its 95 % interval where it has one: 0.12 [0.01, 0.23]."""
    ends = evaluate["interval"][unit].get(name)
    value = number(evaluate[unit][name])
    return value if ends is None else f"{value} [{number(ends['low'])}, {number(ends['high'])}]"


def _row_with_interval(rows: pd.DataFrame, name: str) -> str:
    if rows.empty:
        return NONE
    value, low, high = (number(float(rows.iloc[0][key])) for key in (name, *ends_of(name)))
    return f"{value} [{low}, {high}]"


def scores_table(inputs: Inputs) -> Table:
    """Return every headline number of evaluate, by recording and by segment."""
    found = inputs.evaluate
    units = ("recording", "segment")
    names = dict.fromkeys(name for unit in reversed(units) for name in found[unit])
    rows = [
        (
            SCORE_NAMES.get(name, name),
            *(with_interval(found, unit, name) if name in found[unit] else NONE for unit in units),
        )
        for name in names
    ]
    by_recording = f"by recording (n = {found['recordings']})"
    by_segment = f"by 5-s segment (n = {found['segments']})"
    return Table(("test score [95 % interval]", by_recording, by_segment), tuple(rows))


SCORE_NAMES = {
    "cinc_fixed": "CinC 2021, threshold 0.5",
    "cinc_one_tuned": "CinC 2021, one threshold tuned on valid",
    "cinc_class_tuned": "CinC 2021, a threshold a class tuned on valid",
    "auroc_macro": "AUROC, macro (official)",
    "auroc_micro": "AUROC, micro (public code)",
    "auprc_macro": "AUPRC, macro (official)",
    "auprc_micro": "AUPRC, micro (public code)",
    "f_macro": "F-measure, macro (official)",
    "f_micro": "F-measure, micro",
    "exact_match": "exact match of all classes",
    "calibration_error": "expected calibration error",
    "loss_per_label": "loss, bits a label entry",
    "loss_per_positive": "loss, bits a positive label",
    NOTHING: "for scale: CinC 2021, nothing predicted",
    SINUS: "for scale: CinC 2021, sinus rhythm for everyone",
}


def difference_table(inputs: Inputs) -> Table:
    """Return the parameters in which this run differs from the report's or the paper's."""
    stated = inputs.published["parameters"]
    report = {**stated["report"], **stated["public_code"]}
    paper = {**report, **stated["paper"]}
    rows = [
        (key, show(report[key]), show(paper[key]), show(inputs.params.get(key)))
        for key in inputs.params
        if key in report and not (inputs.params[key] == report[key] == paper[key])
    ]
    return Table(("parameter", "the report", "the paper", "this run"), tuple(rows))


def grid_table(tree: Mapping[str, Any], name: str) -> Table:
    """Return nested metrics as a table: innermost names are columns, what is above them rows."""
    rows: dict[str, dict[str, str]] = {}
    for key, value in flatten(tree).items():
        row, _, column = key.rpartition(".")
        rows.setdefault(row.replace(".", ", ") or name, {})[column] = show(value)
    columns = tuple(dict.fromkeys(column for cells in rows.values() for column in cells))
    lines = ((row, *(cells.get(key, NONE) for key in columns)) for row, cells in rows.items())
    return Table((name, *columns), tuple(lines))


def source_table(sources: pd.DataFrame) -> Table:
    """Return evaluate's scores of each source by recording."""
    rows = _unit(sources, "recording")
    lines = (
        (
            str(rows["source"].iloc[at]),
            show(rows["recordings"].iloc[at]),
            _row_with_interval(rows.iloc[at:], "cinc_fixed"),
            number(float(rows["auroc_macro"].iloc[at])),
        )
        for at in range(len(rows))
    )
    columns = ("source", "test recordings", "CinC 2021 at 0.5 [95 % interval]", "AUROC, macro")
    return Table(columns, tuple(lines))


def frame_table(frame: pd.DataFrame, columns: Mapping[str, str]) -> Table:
    """Return some columns of a data frame under other names."""
    rows = (tuple(show(value) for value in row) for row in frame[list(columns)].to_numpy())
    return Table(tuple(columns.values()), tuple(rows))


def identification_table(identify: Mapping[str, Any], leads: pd.DataFrame) -> Table:
    """Return how often a probe finds its patient in the gallery, by number of leads, in %."""
    names = {"top1": "top 1", "top5": "top 5", "equal_error_rate": "equal error rate"}
    rows = [
        (f"{row['leads']} leads", *(_percent(row, name) for name in names))
        for row in leads.to_dict("records")
    ]
    chance = [f"{100 * identify[f'chance_{name}']:.1f}" for name in ("top1", "top5")]
    rows.append(("by chance", *chance, "50.0"))
    return Table(("% [95 % interval]", *names.values()), tuple(rows))


def refusal_table(refused: pd.DataFrame) -> Table:
    """Return how many records were refused, by source and leading reason."""
    if refused.empty:
        return Table(("source", "reason", "records refused"), ())
    counts = refused.groupby(["source", "reason"], sort=True).size().reset_index(name="count")
    return frame_table(counts, {"source": "source", "reason": "reason", "count": "records refused"})


def number(value: float | int | None) -> str:
    """Return three decimals, or a dash for what is not defined."""
    return NONE if value is None or math.isnan(value) else f"{value:.3f}"


def show(value: Any) -> str:
    """Return a parameter or a count as a person would write it."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return NONE if math.isnan(value) else f"{value:.6g}"
        case None:
            return "null"
        case list() | tuple():
            return "[" + ", ".join(show(part) for part in value) + "]"
        case _:
            return str(value)


def _unit(frame: pd.DataFrame, unit: str) -> pd.DataFrame:
    return frame[frame["unit"] == unit]
