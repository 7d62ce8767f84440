"""Models of chosen epochs: beside the state while a run lasts, among its outputs at the end."""

import shutil
from collections.abc import Callable
from pathlib import Path

from ecg_core.outputs import flush_to_disk, whole
from ecg_core.refusal import Refusal
from ecg_core.training.distributed import rank

NEWEST = 3
"""Files of one name that stay: what either of two saved states points to, and one under way."""


class KeptModels:
    """Checkpoints by name and epoch."""

    def __init__(self, folder: Path, save: Callable[[Path], None]) -> None:
        """`save` writes the model as it is now to a path."""
        self.folder = folder
        self.save = save

    def keep(self, name: str, epoch: int) -> None:
        """Write the model as it is now, on the disk before the state that counts on it."""
        if rank() > 0:
            return
        self.save(self._path(name, epoch))
        flush_to_disk(self._path(name, epoch))
        for old in sorted(self.folder.glob(f"{name}@*.safetensors"))[:-NEWEST]:
            old.unlink()

    def keep_if_wanted(self, epochs: tuple[int, ...], epoch: int) -> None:
        """Write the model as it is now where the epoch is one of those to keep for good."""
        if epoch in epochs:
            self.keep(f"epoch-{epoch:04d}", epoch)

    def hand_over_epochs(self, epochs: tuple[int, ...], folder: Path) -> None:
        """Copy the models of these epochs to `epoch-0010.safetensors` and the like."""
        for epoch in epochs:
            name = f"epoch-{epoch:04d}"
            self.hand_over(name, epoch, folder / f"{name}.safetensors")

    def hand_over(self, name: str, epoch: int, target: Path) -> None:
        """Copy a kept model to its place among the outputs, whole or not at all."""
        path = self._path(name, epoch)
        if not path.is_file():
            raise Refusal(f"{path}: expected the model of epoch {epoch}, found no such file")
        with whole(target) as beside:
            shutil.copyfile(path, beside)

    def _path(self, name: str, epoch: int) -> Path:
        return self.folder / f"{name}@{epoch:06d}.safetensors"
