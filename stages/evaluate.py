"""Score the finetuned model on valid and test: reports/evaluate."""

from pathlib import Path

import numpy as np

from ecg_core import manifest, segments, splits, tracking
from ecg_core.batches.dataset import SegmentBatches
from ecg_core.device import CommonParams, set_up_device
from ecg_core.finetune_params import FinetuneParams
from ecg_core.leads import lead_positions
from ecg_core.metrics import evaluation_report as reports
from ecg_core.metrics.evaluation import EvaluateParams, Predictions
from ecg_core.metrics.parts import Part, held_out_parts
from ecg_core.models import classifier
from ecg_core.params import read_section as read
from stages.command import run_stage

DATA = Path("data")
MODEL, REPORTS = Path("models/finetuned/model.safetensors"), Path("reports/evaluate")


def main() -> None:
    """Evaluate, and tell the tracker, which gets ready meanwhile."""
    with tracking.run("evaluate") as tracker:
        evaluation = evaluated()
        written = reports.write_evaluation(REPORTS, evaluation)
        tracker.log_metrics(evaluation.flat_metrics(), 0)
        tracker.log_artifacts(written)


def evaluated() -> reports.Evaluation:
    """Let the model answer with every lead set, and say what the answers are worth."""
    common, params = read("common", CommonParams), read("evaluate", EvaluateParams)
    own_leads = tuple(sorted(lead_positions(read("finetune", FinetuneParams).leads_to_load)))
    device = set_up_device(common)
    model = classifier.load_classifier(MODEL, str(device))
    store = segments.open_segments(DATA / "segments")
    split = splits.read_split(DATA / "split/split.csv")
    records = manifest.read_manifest(DATA / "manifest/manifest.csv")
    valid, test = held_out_parts(split, records, store.index)

    def predict(leads: tuple[int, ...]) -> reports.PartsPredicted:
        reader = SegmentBatches(store, None, leads, None, common.seed)

        def answers(part: Part) -> Predictions:
            batches = reader.in_turn(part.rows, params.batch_size)
            return part.predictions(classifier.predict(model, batches).numpy().astype(np.float64))

        return reports.PartsPredicted(answers(valid), answers(test))

    return reports.evaluate(predict, own_leads, params)


if __name__ == "__main__":
    run_stage(main, __doc__)
