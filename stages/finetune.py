"""Finetune the pretrained encoder on the scored diagnoses, scoring valid and test each epoch."""

from functools import partial
from pathlib import Path

from ecg_core import splits, tracking
from ecg_core.batches import dataset, feeds
from ecg_core.device import CommonParams
from ecg_core.finetune_params import FinetuneParams
from ecg_core.manifest import label_matrix, read_manifest
from ecg_core.metrics.epoch import epoch_scores
from ecg_core.models import classifier as classifiers
from ecg_core.params import read_section as read
from ecg_core.segments import open_segments
from ecg_core.training import best, checkpoint, objectives, optimizer, processes, schedule
from ecg_core.training.contract import Progress, Row
from ecg_core.training.run import training_run
from stages.command import run_stage

SEGMENTS, SPLIT = Path("data/segments"), Path("data/split/split.csv")
MANIFEST = Path("data/manifest/manifest.csv")
PRETRAINED, MODELS = Path("models/pretrained"), Path("models/finetuned")


def main() -> None:
    """Introduce labelled segments, classifier and scores to the loop."""
    common, params = read("common", CommonParams), read("finetune", FinetuneParams)
    saving = read("checkpoint", checkpoint.CheckpointParams)
    start = classifiers.pretrained_file(PRETRAINED, params.pretrain_epoch)
    world = read("distributed_training", processes.DistributedParams)
    device = processes.join("finetune", common, world, params.update_freq)
    model = classifiers.build_classifier(start, params, common).to(device)
    forward = classifiers.finetune_forward(model, params.freeze_finetune_updates)
    objective = objectives.ClassifyObjective(forward, params.normalize_loss_by, params.pos_weight)
    adam = optimizer.Adam(model.learning(), params.adam_betas, params.adam_eps, params.weight_decay)
    store, manifest = open_segments(SEGMENTS), read_manifest(MANIFEST)
    labels = dataset.segment_labels(store, manifest, label_matrix(manifest))
    reader = dataset.SegmentBatches(store, labels, params.leads_to_load, None, common.seed)
    split = splits.read_split(SPLIT)
    rows = {part: dataset.part_rows(store, split, part) for part in splits.FINETUNE_PARTS}
    rate, feed = schedule.of_finetuning(params), feeds.segment_feed(reader, rows["train"], params)
    save = partial(classifiers.save_classifier, classifier=model)
    decisive = [common, params, world], [start, SPLIT, MANIFEST, SEGMENTS], save, params.max_epoch
    with tracking.run("finetune") as tracker, training_run("finetune", *decisive, tracker) as run:

        def end_of_epoch(epoch: int, row: Row, progress: Progress) -> Row:
            for part in ("valid", "test"):
                here = rows[part]
                logits = classifiers.predict(model, reader.in_turn(here, params.batch_size))
                row |= epoch_scores(part, labels[here], logits, reader.recordings(here))
            best.keep_best(run.kept, progress.extra, row, epoch)
            return row

        told = run.train(model, objective, adam, rate, feed, common, params, saving, end_of_epoch)
        chosen = best.hand_over_best(run.kept, told, params.best_checkpoint_metric, MODELS)
        run.write_history(told, chosen)


if __name__ == "__main__":
    run_stage(main, __doc__)
