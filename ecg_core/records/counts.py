"""The manifest in numbers: by source and reason, and what is odd about what is kept."""

import pandas as pd

from ecg_core.manifest import Reason
from ecg_core.records.collect import Collected
from ecg_core.refusal import Refusal


class TooManyRefused(Refusal):
    """More records are refused than data.max_refused allows, or none is left."""


def manifest_counts(collected: Collected) -> dict[str, object]:
    """Return the manifest's metric, every count with its name."""
    manifest, refused = collected.manifest, collected.refused
    return {
        "records": len(manifest) + len(refused),
        "kept": len(manifest),
        "refused": len(refused),
        "refused_fraction": round(collected.refused_fraction(), 6),
        "second_of_ptbxl_twins": collected.twins,
        "unused_versions": _by(collected.unused, "why"),
        "kept_by_source": _by(manifest, "source"),
        "refused_by_source": {
            str(source): _by_reason(rows) for source, rows in refused.groupby("source")
        },
        "refused_by_reason": _by_reason(refused),
        "patient_kinds": _by(manifest, "patient_kind"),
        "patients": int(manifest["patient"].nunique()),
        "with_flat_leads": _by(manifest[manifest["flat_leads"] != ""], "source"),
        "without_diagnosis": _by(manifest[manifest["codes"] == ""], "source"),
        "without_scored_label": _by(manifest[manifest["classes"] == ""], "source"),
        "without_age": _by(manifest[manifest["age"].isna()], "source"),
        "without_sex": _by(manifest[manifest["sex"] == ""], "source"),
    }


def refused_table(collected: Collected) -> str:
    """Return a table of records by source and leading reason, for a log or a message."""
    refused, kept = collected.refused, collected.manifest["source"].value_counts()
    counts = pd.crosstab(refused["source"], refused["reason"])
    counts.insert(0, "kept", kept.reindex(counts.index))
    sources = sorted({*counts.index, *kept.index})
    columns = ["kept", *(reason.value for reason in Reason if reason.value in counts.columns)]
    table = counts.reindex(index=sources, columns=columns)
    table["kept"] = kept.reindex(sources)
    table = table.fillna(0).astype(int).rename_axis(index=None, columns=None)
    return table.to_string()


def require_enough(collected: Collected, max_refused: float) -> None:
    """Raise TooManyRefused, with the table, when too many records are refused or none is kept."""
    fraction = collected.refused_fraction()
    total = len(collected.manifest) + len(collected.refused)
    if fraction > max_refused or collected.manifest.empty:
        first = collected.refused.head(5)[["path", "reasons", "expected", "found"]]
        examples = "\n".join(
            f"  {path}: {reasons}: expected {expected}, found {found}"
            for path, reasons, expected, found in first.itertuples(index=False)
        )
        raise TooManyRefused(
            f"expected at most {max_refused:.2%} of {total} records refused (data.max_refused) and "
            f"one kept, found {fraction:.2%} refused\n{refused_table(collected)}\n{examples}\n"
            "  … all of them in data/manifest/refused.csv"
        )


def _by(table: pd.DataFrame, column: str) -> dict[str, int]:
    return {str(name): int(count) for name, count in table.groupby(column).size().items()}


def _by_reason(refused: pd.DataFrame) -> dict[str, int]:
    counts = refused["reason"].value_counts()
    return {reason.value: int(counts[reason.value]) for reason in Reason if reason in counts.index}
