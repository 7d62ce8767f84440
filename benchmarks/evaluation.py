"""Time the evaluation on 10 000 synthetic recordings, beside a loop over recordings and classes.

    python -m benchmarks.evaluation

Bars: tuning thresholds, six CinC scores and 1 000 bootstrap resamples in about 10 s; one score at
least 100 times as fast as the loop. Nothing here is asserted in a test.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import pandas as pd

from benchmarks.rows import hand_over, parser_of, row_of
from ecg_core.classes import SINUS_CLASS
from ecg_core.metrics.bootstrap import draw_counts, interval
from ecg_core.metrics.cinc import cinc_score, decide, load_weights
from ecg_core.metrics.evaluation import (
    EvaluateParams,
    Predictions,
    cinc_numbers,
    headline,
    scored_units,
    tune,
)
from ecg_core.params import read_section

ResultT = TypeVar("ResultT")


def synthetic(recordings: int, seed: int) -> Predictions:
    """Return recordings of two segments each, with labels as rare as real ones, by a fair model."""
    generator = np.random.default_rng(seed)
    rates = np.geomspace(0.2, 0.005, 26)
    labels = generator.random((recordings, 26)) < rates
    labels[:, SINUS_CLASS] |= ~labels.any(axis=1)
    recording = np.repeat(np.arange(recordings), 2)
    truth = labels[recording]
    logits = generator.normal(size=truth.shape) * 1.5 + np.log(rates) + 3 * truth
    names = [f"S{number:05d}" for number in range(recordings)]
    table = pd.DataFrame({"source": "synthetic", "record_id": names, "patient": names})
    return Predictions(table, labels, recording, np.tile([0, 1], recordings), logits)


def score_in_a_loop(labels: np.ndarray, decisions: np.ndarray, weights: np.ndarray) -> float:
    """Score pair by pair, recording by recording, as scorers are commonly written."""
    n_classes = labels.shape[1]
    sinus = np.zeros_like(labels)
    sinus[:, SINUS_CLASS] = True
    totals = []
    for outputs in (decisions, labels, sinus):
        confusion = np.zeros((n_classes, n_classes))
        for row in range(len(labels)):
            union = float(max(np.sum(np.any((labels[row], outputs[row]), axis=0)), 1))
            for true in range(n_classes):
                if labels[row, true]:
                    for predicted in range(n_classes):
                        if outputs[row, predicted]:
                            confusion[true, predicted] += 1.0 / union
        totals.append(float(np.sum(weights * confusion)))
    observed, correct, inactive = totals
    return (observed - inactive) / (correct - inactive)


def timed(name: str, work: Callable[[], ResultT], repeats: int = 1) -> tuple[ResultT, float]:
    """Run a few times, print the median seconds, return result and seconds."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - started)
    seconds = float(np.median(taken))
    print(f"{name:<72} {seconds:9.3f} s")
    return result, seconds


def six_scores_with_intervals(
    valid: Predictions, test: Predictions, weights: np.ndarray, params: EvaluateParams
) -> dict[str, tuple[float, float, float]]:
    """Tune on valid, score test in all six ways, with 95 % intervals."""
    found = {}
    for unit, rows in scored_units(test).items():
        thresholds = tune(scored_units(valid)[unit], weights, params)
        once = np.ones((rows.n_patients, 1))
        drawn = draw_counts(rows.n_patients, params.bootstrap, params.bootstrap_seed)
        counts = np.concatenate([once, drawn], axis=1)
        for way, values in cinc_numbers(rows, thresholds, weights, counts).items():
            found[f"{unit} {way}"] = (float(values[0]), *interval(values[1:]))
    return found


def main() -> None:
    """Print every time and whether the bars are met."""
    arguments = parser_of(__doc__)
    arguments.add_argument("--recordings", type=int, default=10_000)
    given = arguments.parse_args()
    recordings = given.recordings
    params, weights = read_section("evaluate", EvaluateParams), load_weights()
    valid, test = synthetic(recordings, 1), synthetic(recordings, 2)
    rows = scored_units(test)["recording"]
    decisions = decide(rows.probabilities, params.threshold)

    def score() -> float:
        return cinc_score(rows.labels, decisions, weights)

    print(f"{recordings} recordings, {2 * recordings} segments, 26 classes")
    fast, seconds = timed("one CinC score (median of 9)", score, repeats=9)
    slow, loop = timed(
        "one CinC score, loop over recordings and classes",
        lambda: score_in_a_loop(rows.labels, decisions, weights),
    )
    print(f"the same to {abs(fast - slow):.1e}; {loop / seconds:.0f} times as fast (bar: 100)")
    ratio = loop / seconds
    told = row_of("one CinC score", seconds, "s", textbook=loop, ratio=ratio)
    told |= {"bar": "100 times as fast as the loop", "met": ratio >= 100}
    found, seconds = timed(
        f"thresholds tuned, six CinC scores, {params.bootstrap} resamples (bar: about 10 s)",
        lambda: six_scores_with_intervals(valid, test, weights, params),
    )
    for name, (value, low, high) in found.items():
        print(f"    {name:<28} {value:.4f}  [{low:.4f}, {high:.4f}]")
    for unit, rows in scored_units(test).items():
        limits = tune(rows, weights, params)
        timed(
            f"every headline number by {unit} with its interval",
            partial(headline, rows, limits, weights, params),
        )
    whole = row_of(f"thresholds, scores, {params.bootstrap} resamples", seconds, "s")
    hand_over([row | {"recordings": recordings} for row in (told, whole)], given.json)


if __name__ == "__main__":
    main()
