"""Identify patients: ArcFace on the patients of train, then gallery against probe by cosine."""

from functools import partial
from pathlib import Path

import numpy as np

from ecg_core import manifest, segments, splits, tracking
from ecg_core.batches import crops, dataset, feeds
from ecg_core.device import CommonParams
from ecg_core.identify_params import IdentifyParams
from ecg_core.metrics import identification_report as reports
from ecg_core.metrics.parts import Part, identify_parts
from ecg_core.models import arcface, classifier
from ecg_core.params import read_section as read
from ecg_core.training import checkpoint, identify_objective, optimizer, processes, schedule
from ecg_core.training.run import training_run
from stages.command import run_stage

SEGMENTS, SPLIT = Path("data/segments"), Path("data/split/split.csv")
MANIFEST, PRETRAINED = Path("data/manifest/manifest.csv"), Path("models/pretrained")
MODELS, REPORTS = Path("models/identify"), Path("reports/identify")


def main() -> None:
    """Introduce segments, patients and ArcFace to the loop, then match probes and gallery."""
    common, params = read("common", CommonParams), read("identify", IdentifyParams)
    saving, split = read("checkpoint", checkpoint.CheckpointParams), splits.read_split(SPLIT)
    if "gallery" not in set(split["identify"]):
        return reports.write_nothing(REPORTS, MODELS)
    world = read("distributed_training", processes.DistributedParams)
    device = processes.join("identify", common, world, params.update_freq)
    store = segments.open_segments(SEGMENTS)
    train, gallery, probe = identify_parts(split, manifest.read_manifest(MANIFEST), store.index)
    start = classifier.pretrained_file(PRETRAINED, params.pretrain_epoch)
    model = arcface.build_arcface(start, params, train.n_patients, common).to(device)
    reader = dataset.SegmentBatches(store, None, params.leads_to_load, None, common.seed)
    forward = arcface.identify_forward(model, params.freeze_finetune_updates)
    logits = partial(arcface.arcface_logits, scale=params.scale, margin=params.margin)
    patients = reader.recording_ids[train.rows], train.patients[train.recording]
    objective = identify_objective.ArcFaceObjective(forward, logits, *patients)
    adam = optimizer.Adam(model.learning(), params.adam_betas, params.adam_eps, params.weight_decay)
    rate, feed = schedule.of_finetuning(params), feeds.segment_feed(reader, train.rows, params)

    def embed(some: Part, leads: tuple[int, ...]) -> np.ndarray:
        few = dataset.SegmentBatches(store, None, leads, None, common.seed)
        batches = crops.to_embed(few, some.rows, some.recording, params.batch_size, params.crop)
        return arcface.embeddings(model, batches).numpy()

    task = reports.Task(embed, probe, gallery, params)
    save = partial(arcface.save_arcface, model=model)
    decisive = [common, params, world], [start, SPLIT, MANIFEST, SEGMENTS], save, params.max_epoch
    with tracking.run("identify") as tracker, training_run("identify", *decisive, tracker) as run:
        told = run.train(model, objective, adam, rate, feed, common, params, saving, task.complete)
        save(MODELS / "model.safetensors")
        run.write_history(told, told[-1] | task.write(REPORTS))


if __name__ == "__main__":
    run_stage(main, __doc__)
