"""What the report says: its chapters, from the inputs; and its figures, by file name."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from ecg_core import evaluation_figures, figures
from ecg_core.report_inputs import Inputs
from ecg_core.report_page import Block, Chapter, Commands, Page, Picture, Table, Text
from ecg_core.report_tables import (
    NOTHING,
    difference_table,
    grid_table,
    headline_table,
    identification_table,
    number,
    refusal_table,
    scale_of,
    scores_table,
    source_table,
)

EVALUATION = "evaluate/figures"
"""Where the figures of evaluate's tables lie in reports/, beside those tables."""

CAPTIONS = {
    "pretrain_loss": "Epoch against the pretraining loss (sum of all four terms) and the accuracy.",
    "finetune_loss": "Train, valid and test loss against the epoch, in both normalisations.",
    "cinc": "The CinC 2021 score at the 0.5 threshold against the finetuning epoch.",
    "loss_terms": "The pretraining loss term by term.",
    "schedules": "Perplexities of the codebooks, Gumbel temperature, learning rate, gradient norm.",
    "scores": "The six CinC 2021 scores with 95 % intervals, beside two answers without a model.",
    "per_class": "AUROC and F-measure of each class that test has; in brackets its recordings.",
    "leads": "The score when only some leads are given, with 95 % intervals.",
    "calibration": "How often a class was there against how probable it was said to be.",
}

SCORES = ("scores", "per_class", "leads", "calibration")


def draw_all(inputs: Inputs) -> dict[str, Figure]:
    """Return the figures by place in reports/, as `report/cinc`; what was imported has no curve."""
    drawn = {f"report/{name}": figure for name, figure in _draw_curves(inputs).items()}
    return drawn | {f"{EVALUATION}/{name}": figure for name, figure in _draw_scores(inputs).items()}


def _draw_curves(inputs: Inputs) -> dict[str, Figure]:
    nothing = float(inputs.evaluate["recording"][NOTHING])
    recordings = int(inputs.evaluate["recordings"])
    drawn = {}
    if not inputs.pretrain.empty:
        drawn["pretrain_loss"] = figures.pretraining_loss(inputs.pretrain)
        drawn["loss_terms"] = figures.loss_terms(inputs.pretrain)
        drawn["schedules"] = figures.schedules(inputs.pretrain)
    drawn["finetune_loss"] = figures.finetuning_loss(inputs.finetune)
    drawn["cinc"] = figures.cinc_by_epoch(inputs.finetune, nothing, recordings)
    return drawn


def _draw_scores(inputs: Inputs) -> dict[str, Figure]:
    nothing = float(inputs.evaluate["recording"][NOTHING])
    by_recording = {
        name: table[table["unit"] == "recording"]
        for name, table in (
            ("per_class", inputs.per_class),
            ("leads", inputs.leads),
            ("calibration", inputs.calibration),
        )
    }
    return {
        "scores": evaluation_figures.six_scores(inputs.evaluate),
        "per_class": evaluation_figures.per_class_bars(by_recording["per_class"]),
        "leads": evaluation_figures.lead_set_bars(by_recording["leads"], nothing),
        "calibration": evaluation_figures.reliability(by_recording["calibration"]),
    }


def build_page(inputs: Inputs, drawings: dict[str, str]) -> Page:
    """Return the page; `drawings` are the figures' SVG by their places, as of draw_all."""
    places = {place.rsplit("/", 1)[1]: place for place in drawings}

    def pictures(*names: str) -> list[Block]:
        found = {name: places[name] for name in names if name in places}
        return [Picture(place, CAPTIONS[name], drawings[place]) for name, place in found.items()]

    remarks = [Text(remark) for remark in inputs.published["remarks"]]
    chapters: list[tuple[str, Sequence[Block]]] = [
        ("Result", [headline_table(inputs), *remarks]),
        ("The report's three plots", pictures("pretrain_loss", "finetune_loss", "cinc")),
        ("Pretraining", pictures("loss_terms", "schedules")),
        ("Scores on test", [*_scores(inputs), *pictures(*SCORES)]),
        ("Sources", [] if inputs.sources.empty else [source_table(inputs.sources)]),
        ("Patient identification", _identification(inputs)),
        ("Data, split and leaks", _data(inputs)),
        ("Parameters that differ", [difference_table(inputs)]),
        ("Made by", [Commands(("make repro",)), Text(REPRODUCE)]),
    ]
    title = "W2V + CMSC + RLM on 12-lead ECGs: the report, the paper, this run"
    kept = tuple(Chapter(name, tuple(blocks)) for name, blocks in chapters if blocks)
    return Page(title, _warning(inputs), kept)


REPRODUCE = (
    "runs every stage whose inputs changed; params.yaml holds every number that was chosen. "
    "For research, not for diagnosis."
)


def _warning(inputs: Inputs) -> str:
    scale, found = scale_of(inputs), inputs.evaluate
    if scale == "FULL SCALE":
        return (
            f"FULL SCALE: the base model; scores on {found['recordings']} test recordings of this "
            "project's own split, which is not the report's nor the paper's."
        )
    layers, width = (inputs.params[f"model.encoder_{k}"] for k in ("layers", "embed_dim"))
    nothing = number(found["recording"][NOTHING])
    return (
        f"{scale}: {len(inputs.manifest)} recordings, a model of {layers} layers of {width}, "
        f"{found['recordings']} test recordings. The report's and the paper's numbers are of "
        "another scale, and this run's cannot be compared with them. For scale: predicting "
        f"nothing scores {nothing}, sinus rhythm for everyone 0."
    )


def _scores(inputs: Inputs) -> list[Block]:
    found = inputs.evaluate
    absent = found["classes_absent"] or "none"
    return [
        Text(
            f"{found['recordings']} test recordings of {found['patients']} patients; "
            f"{found['recordings_without_scored_label']} have no scored label. Thresholds are "
            f"tuned on {found['valid_recordings']} valid recordings. "
            f"Classes absent from test: {absent}."
        ),
        scores_table(inputs),
    ]


def _identification(inputs: Inputs) -> list[Block]:
    found = inputs.identify
    if not found or not found["patients"]:
        return []
    return [
        Text(
            f"{found['patients']:.0f} patients with two recordings: does the second find the "
            "first among all first ones, by the cosine of their embeddings?"
        ),
        identification_table(found, inputs.identify_leads),
    ]


SPLIT = {
    "parts": "part",
    "leaks": "shared by",
    "identify_patients_shared": "identification's patients",
}


def _data(inputs: Inputs) -> list[Block]:
    kept = inputs.manifest.groupby("source", sort=True).size()
    refusals = refusal_table(inputs.refused)
    return [
        Text(f"{len(inputs.manifest)} records kept, {len(inputs.refused)} refused."),
        Table(("source", "records kept"), tuple((str(k), str(v)) for k, v in kept.items())),
        *([refusals] if refusals.rows else []),
        Text(
            "The split, and its leak report: how many held-out segments share what with training."
        ),
        *(grid_table(part, SPLIT.get(name, name)) for name, part in inputs.split.items()),
    ]
