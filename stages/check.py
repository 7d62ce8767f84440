"""Validate the whole of params.yaml before anything runs; the output is the same every time."""

from pathlib import Path

from ecg_core.batches import augment, dataset
from ecg_core.contradictions import refuse_contradictions
from ecg_core.device import CommonParams
from ecg_core.finetune_params import FinetuneParams
from ecg_core.identify_params import IdentifyParams
from ecg_core.metrics.evaluation import EvaluateParams
from ecg_core.models import encoder, fairseq_checkpoint
from ecg_core.outputs import write_text
from ecg_core.params import Section, refuse_sections
from ecg_core.params import read_section as read
from ecg_core.records.raw import DataParams
from ecg_core.records.split import SplitParams
from ecg_core.tracking import TrackingParams
from ecg_core.training import checkpoint, objectives, optimizer, processes, schedule
from stages.command import run_stage

SECTIONS: dict[str, type[Section]] = {
    "data": DataParams,
    "split": SplitParams,
    "common": CommonParams,
    "task": augment.TaskParams,
    "dataset": dataset.DatasetParams,
    "distributed_training": processes.DistributedParams,
    "criterion": objectives.CriterionParams,
    "optimization": optimizer.OptimizationParams,
    "optimizer": optimizer.OptimizerParams,
    "lr_scheduler": schedule.ScheduleParams,
    "model": encoder.ModelParams,
    "checkpoint": checkpoint.CheckpointParams,
    "pretrained": fairseq_checkpoint.PretrainedParams,
    "finetune": FinetuneParams,
    "identify": IdentifyParams,
    "evaluate": EvaluateParams,
    "tracking": TrackingParams,
}


def main() -> None:
    """Refuse every wrong key at once, then what only two sections together can get wrong."""
    refuse_sections(SECTIONS)
    limits = read("optimization", optimizer.OptimizationParams)
    scheduling = read("lr_scheduler", schedule.ScheduleParams)
    schedule.learning_rate(scheduling, limits.lr, limits.max_update)
    refuse_contradictions(
        task_leads=read("task", augment.TaskParams).n_leads,
        in_d=read("model", encoder.ModelParams).in_d,
        max_epoch=limits.max_epoch,
        keep_epochs=read("checkpoint", checkpoint.CheckpointParams).keep_epochs,
        pretrain_epoch=read("finetune", FinetuneParams).pretrain_epoch,
    )
    write_text(Path("data/params-are-valid.txt"), "params.yaml is valid\n")


if __name__ == "__main__":
    run_stage(main, __doc__)
