"""Write the pooled representation of WFDB records: a CSV row a segment of five seconds."""

import argparse
import sys
from pathlib import Path

import pandas as pd
import torch

from ecg_core.manifest import RefusedRecord
from ecg_core.models.encoder import load_encoder
from ecg_core.params import read_section
from ecg_core.records.any_record import read_any, segments_of
from ecg_core.records.raw import DataParams
from ecg_core.tables import write_csv
from stages.command import guarded


def main() -> None:
    """Embed each record; one that is refused costs the others nothing, but the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD", help="path of a record")
    parser.add_argument("--model", type=Path, default="models/pretrained/model.safetensors")
    parser.add_argument("--out", type=Path, default="embeddings.csv", help="default: %(default)s")
    given = parser.parse_args()
    data, encoder = read_section("data", DataParams), load_encoder(given.model)
    tables, refused = [], []
    for path in given.records:
        try:
            record = read_any(path)
            segments = segments_of(record, data.fs, data.seconds, data.resample_method)
        except RefusedRecord as refusal:
            refused.append(f"{path}: {refusal}")
            continue
        with torch.inference_mode():
            vectors = torch.cat([encoder(part) for part in torch.from_numpy(segments).split(64)])
        table = pd.DataFrame(vectors.numpy())
        table.insert(0, "segment", range(len(table)))
        table.insert(0, "record", record.name)
        tables.append(table)
    if tables:
        write_csv(given.out, pd.concat(tables))
        print(f"{given.out}: {sum(map(len, tables))} segments of {len(tables)} records")
    sys.exit("\n".join(f"refused: {line}" for line in refused) or 0)


if __name__ == "__main__":
    guarded(main)
