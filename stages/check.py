"""Validate the whole of params.yaml before anything runs; the output is the same every time."""

from pathlib import Path

from ecg_core.batches import augment, dataset
from ecg_core.device import CommonParams
from ecg_core.finetune_params import FinetuneParams
from ecg_core.metrics.evaluation import EvaluateParams
from ecg_core.models import encoder, fairseq_checkpoint
from ecg_core.outputs import write_text
from ecg_core.params import PARAMS_FILE, BadParams, Section, refuse_sections
from ecg_core.params import read_section as read
from ecg_core.records.raw import DataParams
from ecg_core.records.split import SplitParams
from ecg_core.tracking import TrackingParams
from ecg_core.training import checkpoint, distributed, objectives, optimizer, schedule
from stages.command import run_stage

SECTIONS: dict[str, type[Section]] = {
    "data": DataParams,
    "split": SplitParams,
    "common": CommonParams,
    "task": augment.TaskParams,
    "dataset": dataset.DatasetParams,
    "distributed_training": distributed.DistributedParams,
    "criterion": objectives.CriterionParams,
    "optimization": optimizer.OptimizationParams,
    "optimizer": optimizer.OptimizerParams,
    "lr_scheduler": schedule.ScheduleParams,
    "model": encoder.ModelParams,
    "checkpoint": checkpoint.CheckpointParams,
    "pretrained": fairseq_checkpoint.PretrainedParams,
    "finetune": FinetuneParams,
    "evaluate": EvaluateParams,
    "tracking": TrackingParams,
}


def main() -> None:
    """Refuse every wrong key at once, then what only two sections together can get wrong."""
    refuse_sections(SECTIONS)
    leads, in_d = read("task", augment.TaskParams).n_leads, read("model", encoder.ModelParams).in_d
    limits = read("optimization", optimizer.OptimizationParams)
    kept = read("checkpoint", checkpoint.CheckpointParams).keep_epochs
    wanted = read("finetune", FinetuneParams).pretrain_epoch
    scheduling = read("lr_scheduler", schedule.ScheduleParams)
    schedule.learning_rate(scheduling, limits.lr, limits.max_update)
    contradictions = {
        f"model.in_d: expected the task's {leads} leads, found {in_d}": leads != in_d,
        f"checkpoint.keep_epochs: expected 1 to {limits.max_epoch} (optimization.max_epoch), found "
        f"{list(kept)}": any(not 1 <= epoch <= limits.max_epoch for epoch in kept),
        f"finetune.pretrain_epoch: expected one of checkpoint.keep_epochs {list(kept)}, "
        f"found {wanted}": wanted not in (None, *kept),
    }
    if any(contradictions.values()):
        wrong = [f"{PARAMS_FILE}: {text}" for text, holds in contradictions.items() if holds]
        raise BadParams("\n".join(wrong))
    write_text(Path("data/params-are-valid.txt"), "params.yaml is valid\n")


if __name__ == "__main__":
    run_stage(main, __doc__)
