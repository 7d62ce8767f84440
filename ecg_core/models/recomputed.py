"""Activation checkpointing: a part's input is kept, the rest computed again for the gradients."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputed(nn.Module):
    """A part of a model that can do without its activations."""

    checkpoints_activations = False

    def __call__(self, *inputs: Any) -> Tensor:
        """Call the part; where it checkpoints, gradients will call it once more.

        All dropout draws from torch's generators, which are put back for the second call.
        """
        call = super().__call__
        if self.checkpoints_activations and torch.is_grad_enabled():
            output: Tensor = checkpoint(call, *inputs, use_reentrant=False)
        else:
            output = call(*inputs)
        return output
