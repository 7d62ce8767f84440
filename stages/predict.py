"""Say which scored classes a WFDB record has, and draw it; for research, not for diagnosis."""

import argparse
import json
import sys
from pathlib import Path

from ecg_core.answers import answer_of, as_table, in_words, mean_probabilities
from ecg_core.ecg_drawing import draw_ecg
from ecg_core.figures import figure_bytes
from ecg_core.finetune_params import FinetuneParams
from ecg_core.leads import lead_positions
from ecg_core.manifest import RefusedRecord
from ecg_core.metrics.evaluation import EvaluateParams
from ecg_core.models.classifier import load_classifier
from ecg_core.outputs import write_bytes
from ecg_core.params import read_section
from ecg_core.records.any_record import read_any, require_leads, segments_of
from ecg_core.records.raw import DataParams
from stages.command import guarded


def main() -> None:
    """Answer for each record; one that is refused costs the others nothing, but the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD", help="path of a record")
    parser.add_argument("--model", type=Path, default="models/finetuned/model.safetensors")
    parser.add_argument("--json", action="store_true", help="print JSON, a line a record")
    parser.add_argument(
        "--draw", type=Path, default="drawings", help="folder; default: %(default)s"
    )
    given = parser.parse_args()
    data, params = read_section("data", DataParams), read_section("evaluate", EvaluateParams)
    own_leads = lead_positions(read_section("finetune", FinetuneParams).leads_to_load)
    model, refused = load_classifier(given.model), []
    for path in given.records:
        try:
            record = require_leads(read_any(path), own_leads)
            segments = segments_of(record, data.fs, data.seconds, data.resample_method)
        except RefusedRecord as refusal:
            refused.append(f"{path}: {refusal}")
            continue
        leads = [lead for lead in record.leads if lead in own_leads]
        probabilities = mean_probabilities(model, segments, leads, params.batch_size)
        answer = answer_of(record.name, leads, len(segments), probabilities, params.threshold)
        print(json.dumps(answer) if given.json else as_table(answer))
        title = f"{record.name}   {record.seconds:g} s at {record.fs:g} Hz"
        figure = draw_ecg(record.signal_mv, record.fs, record.leads, title, in_words(answer))
        for kind in ("png", "svg"):
            write_bytes(given.draw / f"{record.name}.{kind}", figure_bytes(figure, kind))
    sys.exit("\n".join(f"refused: {line}" for line in refused) or 0)


if __name__ == "__main__":
    guarded(main)
