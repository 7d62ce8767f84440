"""The encoder with one direction a patient: ArcFace, for patient identification."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ecg_core.device import CommonParams
from ecg_core.identify_params import IdentifyParams
from ecg_core.models.downstream import Downstream, start_encoder
from ecg_core.models.encoder import Encoder, Source, SourceBatch, SourcePadding, pool
from ecg_core.models.model_file import save_model


class ArcFace(Downstream):
    """Unit embeddings, and their cosines with each patient's direction. method.md 3.8."""

    def __init__(self, encoder: Encoder, n_patients: int) -> None:
        super().__init__(encoder)
        kernel = torch.empty(n_patients, encoder.params.encoder_embed_dim).uniform_(-1, 1)
        # columns, not rows, as in the original: only the starting lengths of directions differ
        self.kernel = nn.Parameter(F.normalize(kernel, dim=0))

    def embed(
        self, source: Source, padding: SourcePadding | None = None
    ) -> Float[Tensor, "batch channel"]:
        """Return one vector of length 1 a segment."""
        frames, _ = self.represent(source, padding)
        # padded frames count here, as in the original
        return F.normalize(pool(frames, None), dim=1)

    def forward(
        self, source: Source, padding: SourcePadding | None = None
    ) -> Float[Tensor, "batch patient"]:
        """Return the cosine of each embedding with each patient's direction."""
        cosines = self.embed(source, padding) @ F.normalize(self.kernel, dim=1).T
        return cosines.clamp(-1.0, 1.0)

    def learning(self) -> list[nn.Parameter]:
        """Return the parameters that training changes."""
        return [self.kernel] if self.encoder_is_frozen else list(self.parameters())


def arcface_logits(
    cosines: Float[Tensor, "batch patient"],
    patients: Int[Tensor, " batch"],
    scale: float,
    margin: float,
) -> Float[Tensor, "batch patient"]:
    """Return logits in which a segment's own patient is `margin` radians further away.

    cos(t + m) = cos t cos m - sin t sin m; where t + m would pass 180 degrees, cos t - m sin m.
    method.md 3.8 (Deng et al. 2019).
    """
    own = cosines.gather(1, patients[:, None])
    # at t = 0 the root has no gradient; a bound far below rounding gives it the gradient 0
    sine = (1 - own**2).clamp_min(torch.finfo(own.dtype).tiny).sqrt()
    further = own * math.cos(margin) - sine * math.sin(margin)
    passed = own <= math.cos(math.pi - margin)
    further = torch.where(passed, own - margin * math.sin(margin), further)
    return scale * cosines.scatter(1, patients[:, None], further)


def build_arcface(
    pretrained: Path, identify: IdentifyParams, n_patients: int, common: CommonParams
) -> ArcFace:
    """Return the model to train: the checkpoint's encoder, or its like at random."""
    model = ArcFace(start_encoder(pretrained, identify, common), n_patients)
    model.encoder_is_frozen = identify.encoder_is_frozen
    return model


def save_arcface(path: Path, model: ArcFace) -> None:
    """Write a model with its parameters."""
    params = model.encoder.params.model_dump(mode="json", by_alias=True)
    save_model(path, "arcface", {"model": params, "n_patients": len(model.kernel)}, model)


def identify_forward(model: ArcFace, resting_updates: int) -> Callable[[SourceBatch, int], Tensor]:
    """Return (batch, update) -> cosines; the encoder rests for the first updates."""

    def forward(batch: SourceBatch, update: int) -> Tensor:
        model.encoder_rests = update < resting_updates
        cosines: Tensor = model(batch.source, batch.padding)
        return cosines

    return forward


@torch.no_grad()
def embeddings(model: ArcFace, batches: Iterable[SourceBatch]) -> Float[Tensor, "segment channel"]:
    """Return the embeddings of all batches, on the CPU, in eval mode."""
    model.train(False)
    device = model.kernel.device
    return torch.cat([model.embed(batch.source.to(device)).cpu() for batch in batches])
