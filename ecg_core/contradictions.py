"""What only two sections of params.yaml together can get wrong."""

from ecg_core.params import PARAMS_FILE, BadParams


def refuse_contradictions(
    task_leads: int,
    in_d: int,
    max_epoch: int,
    keep_epochs: tuple[int, ...],
    pretrain_epoch: int | None,
) -> None:
    """Raise BadParams with a line for every pair of keys that do not go together."""
    contradictions = {
        f"model.in_d: expected the task's {task_leads} leads, found {in_d}": task_leads != in_d,
        f"checkpoint.keep_epochs: expected 1 to {max_epoch} (optimization.max_epoch), found "
        f"{list(keep_epochs)}": any(not 1 <= epoch <= max_epoch for epoch in keep_epochs),
        f"finetune.pretrain_epoch: expected one of checkpoint.keep_epochs {list(keep_epochs)}, "
        f"found {pretrain_epoch}": pretrain_epoch not in (None, *keep_epochs),
    }
    wrong = [f"{PARAMS_FILE}: {text}" for text, holds in contradictions.items() if holds]
    if wrong:
        raise BadParams("\n".join(wrong))
