"""Pretrain the encoder (W2V + CMSC + random lead masking), or import a checkpoint instead."""

from functools import partial
from pathlib import Path

from ecg_core import segments, splits, tracking
from ecg_core.batches import augment, dataset, feeds
from ecg_core.device import CommonParams
from ecg_core.models import encoder, fairseq_checkpoint, wav2vec2_cmsc
from ecg_core.params import read_section as read
from ecg_core.training import checkpoint, history, objectives, optimizer, processes, schedule
from ecg_core.training.contract import Progress, Row
from ecg_core.training.run import reports_of, training_run
from stages.command import run_stage

SEGMENTS, SPLIT = Path("data/segments"), Path("data/split/split.csv")
MODELS = Path("models/pretrained")


def main() -> None:
    """Introduce segments, model and loss to the loop."""
    imported = read("pretrained", fairseq_checkpoint.PretrainedParams).path
    if imported is not None:
        fairseq_checkpoint.import_pretrained(Path(imported), MODELS / "model.safetensors")
        return history.write_history(reports_of("pretrain"), "pretrain", [])
    common, params = read("common", CommonParams), read("model", encoder.ModelParams)
    task, batching = read("task", augment.TaskParams), read("dataset", dataset.DatasetParams)
    criterion = read("criterion", objectives.CriterionParams)
    limits = read("optimization", optimizer.OptimizationParams)
    optimizing = read("optimizer", optimizer.OptimizerParams)
    scheduling = read("lr_scheduler", schedule.ScheduleParams)
    world = read("distributed_training", processes.DistributedParams)
    saving = read("checkpoint", checkpoint.CheckpointParams)
    sections = [common, params, task, batching, criterion, limits, optimizing, scheduling, world]

    device = processes.join("pretrain", common, world, world.micro_batches(limits.update_freq))
    model = wav2vec2_cmsc.build_pretraining(params, common).to(device)
    forward = wav2vec2_cmsc.pretrain_forward(model, common.seed, device)
    objective = objectives.PretrainObjective(forward, params.temperature, criterion)
    adam = optimizer.adam(model.parameters(), optimizing)
    rate = schedule.learning_rate(scheduling, limits.lr, limits.max_update)
    store, per_update = segments.open_segments(SEGMENTS), world.micro_batches(limits.update_freq)
    reader = dataset.SegmentBatches(store, None, task.leads_to_load, task, common.seed)
    feed = feeds.pair_feed(reader, splits.read_split(SPLIT), batching, per_update)
    save = partial(wav2vec2_cmsc.save_pretraining, model=model)
    decisive = [*sections, saving], [SPLIT, SEGMENTS], save, limits.max_epoch
    with tracking.run("pretrain") as tracker, training_run("pretrain", *decisive, tracker) as run:

        def end_of_epoch(epoch: int, row: Row, _: Progress) -> Row:
            run.kept.keep_if_wanted(saving.keep_epochs, epoch)
            return row

        rows = run.train(model, objective, adam, rate, feed, common, limits, saving, end_of_epoch)
        save(MODELS / "model.safetensors")
        run.kept.hand_over_epochs(saving.keep_epochs, MODELS)
        run.write_history(rows)


if __name__ == "__main__":
    run_stage(main, __doc__)
