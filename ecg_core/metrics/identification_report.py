"""All of reports/identify beside the history: the lead sets, and who was taken for whom."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_core.identify_params import IdentifyParams
from ecg_core.leads import LEAD_SETS, LEADS, lead_positions
from ecg_core.metrics.evaluation_tables import rounded
from ecg_core.metrics.identification import Matching, headline, match, match_table, mean_embeddings
from ecg_core.metrics.parts import Part
from ecg_core.outputs import write_json
from ecg_core.tables import write_csv

Leads = tuple[int, ...]
Embed = Callable[[Part, Leads], np.ndarray]
"""(part, leads) -> one vector a segment, or one a recording."""


HISTORY, LEAD_TABLE, MATCH_TABLE = "history.csv", "leads.csv", "matches.csv"


@dataclass(frozen=True)
class Task:
    """A model that embeds, and the recordings it has to match."""

    embed: Embed
    probe: Part
    gallery: Part
    params: IdentifyParams

    @property
    def leads(self) -> Leads:
        """The model's own leads."""
        return tuple(sorted(lead_positions(self.params.leads_to_load)))

    def matching(self, leads: Leads) -> Matching:
        """Match every probe against the gallery, both with some leads only."""
        vectors = []
        for part in (self.probe, self.gallery):
            embedded = self.embed(part, leads).astype(np.float64)
            recording = np.arange(len(embedded)) if self.params.crop else part.recording
            vectors.append(mean_embeddings(embedded, recording))
        patients = (part.recordings["patient"].to_numpy() for part in (self.probe, self.gallery))
        return match(vectors[0], vectors[1], *patients)

    def complete(self, epoch: int, row: dict[str, float], progress: object) -> dict[str, float]:
        """Complete an epoch's row of history; nothing is chosen by it."""
        return {**row, "probe_top1": float((self.matching(self.leads).rank() == 1).mean())}

    def headline(self, leads: Leads) -> dict[str, float]:
        """Return every number of a choice of leads."""
        params = self.params
        return headline(self.matching(leads), params.bootstrap, params.bootstrap_seed)

    def lead_table(self) -> pd.DataFrame:
        """Return leads.csv: each lead set, as far as the model has it."""
        rows = []
        for size in self.params.lead_sets:
            kept = tuple(lead for lead in LEAD_SETS[size] if lead in self.leads)
            if kept:
                names = " ".join(LEADS[lead] for lead in kept)
                rows.append({"leads": size, "names": names, **self.headline(kept)})
        return pd.DataFrame(rows)

    def write(self, folder: Path) -> dict[str, float]:
        """Write the lead sets and the matches; return the headline numbers."""
        found = self.matching(self.leads)
        table = match_table(found, self.probe.recordings, self.gallery.recordings)
        write_csv(folder / LEAD_TABLE, rounded(self.lead_table()))
        write_csv(folder / MATCH_TABLE, rounded(table))
        return headline(found, self.params.bootstrap, self.params.bootstrap_seed)


def write_nothing(reports: Path, models: Path) -> None:
    """Write the same outputs where no patient is known to have two recordings."""
    models.mkdir(parents=True, exist_ok=True)
    write_csv(reports / HISTORY, pd.DataFrame(columns=["epoch"]))
    write_csv(reports / LEAD_TABLE, pd.DataFrame(columns=["leads", "names", "patients"]))
    write_csv(reports / MATCH_TABLE, pd.DataFrame(columns=["patient", "probe", "gallery", "rank"]))
    write_json(reports / "metrics.json", {"identify": {"patients": 0}})
