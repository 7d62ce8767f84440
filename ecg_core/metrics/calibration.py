"""Does a class of probability 0.7 come in 7 of 10 recordings?"""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float


def reliability_curve(
    labels: Bool[np.ndarray, "row label"], probabilities: Float[np.ndarray, "row label"], bins: int
) -> pd.DataFrame:
    """Return, for equal bins of probability over all label entries, what was said and what came.

    Columns: low, high, entries, mean_probability, frequency; the last two are NaN in empty bins.
    """
    place = np.clip((probabilities.ravel() * bins).astype(np.int64), 0, bins - 1)
    entries = np.bincount(place, minlength=bins)
    edges = np.arange(bins + 1) / bins
    said = np.bincount(place, probabilities.ravel().astype(np.float64), minlength=bins)
    came = np.bincount(place, labels.ravel().astype(np.float64), minlength=bins)
    filled = np.where(entries > 0, entries, np.nan)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "entries": entries,
            "mean_probability": said / filled,
            "frequency": came / filled,
        }
    )


def expected_calibration_error(curve: pd.DataFrame) -> float:
    """Return the entries' mean |said - came| of their bin (Naeini et al. 2015); NaN if none."""
    entries = curve["entries"].to_numpy(dtype=np.float64)
    if not entries.sum():
        return float("nan")
    gaps = (curve["mean_probability"] - curve["frequency"]).abs().fillna(0.0).to_numpy()
    return float((entries * gaps).sum() / entries.sum())
