"""Score the finetuned model on valid and test: reports/evaluate."""

from pathlib import Path

import numpy as np

from ecg_core import tracking
from ecg_core.batches.dataset import SegmentBatches
from ecg_core.device import CommonParams, set_up_device
from ecg_core.finetune_params import FinetuneParams
from ecg_core.leads import lead_positions
from ecg_core.manifest import read_manifest
from ecg_core.metrics.evaluation import EvaluateParams, Predictions
from ecg_core.metrics.evaluation_report import PartsPredicted, evaluate, write_evaluation
from ecg_core.metrics.parts import Part, held_out_parts
from ecg_core.models import classifier
from ecg_core.params import read_section as read
from ecg_core.segments import open_segments
from ecg_core.splits import read_split
from stages.command import run_stage

SEGMENTS, SPLIT = Path("data/segments"), Path("data/split/split.csv")
MANIFEST, MODEL = Path("data/manifest/manifest.csv"), Path("models/finetuned/model.safetensors")
REPORTS = Path("reports/evaluate")


def main() -> None:
    """Let the model answer with every lead set, and write what the answers are worth."""
    common, params = read("common", CommonParams), read("evaluate", EvaluateParams)
    own_leads = tuple(sorted(lead_positions(read("finetune", FinetuneParams).leads_to_load)))
    device = set_up_device(common)
    model = classifier.load_classifier(MODEL, str(device))
    store, split, manifest = open_segments(SEGMENTS), read_split(SPLIT), read_manifest(MANIFEST)
    valid, test = held_out_parts(split, manifest, store.index)

    def predict(leads: tuple[int, ...]) -> PartsPredicted:
        reader = SegmentBatches(store, None, leads, None, common.seed)

        def answers(part: Part) -> Predictions:
            batches = reader.in_turn(part.rows, params.batch_size)
            return part.predictions(classifier.predict(model, batches).numpy().astype(np.float64))

        return PartsPredicted(answers(valid), answers(test))

    evaluation = evaluate(predict, own_leads, params)
    write_evaluation(REPORTS, evaluation)
    with tracking.run("evaluate") as tracker:
        tracker.log_metrics(evaluation.flat_metrics(), 0)
        tracker.log_artifacts([REPORTS])


if __name__ == "__main__":
    run_stage(main, __doc__)
