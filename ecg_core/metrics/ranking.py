"""AUROC, AUPRC, F-measure and accuracies, as the official scorer and as the public code have them.

Macro (the Challenge's evaluate_model.py): the mean over the classes for which a number is defined.
Micro (the public training code, sklearn's average="micro"): all label entries in one list.
What is undefined (no positive, no negative, nothing predicted) is NaN, without a warning.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.sparse import csr_array

Labels = Bool[np.ndarray, "row label"]
Decisions = Bool[np.ndarray, "row label"]
Scores = Float[np.ndarray, "row label"]


def divide(above: ArrayLike, below: ArrayLike) -> Float[np.ndarray, "..."]:
    """Return above / below, NaN where below is 0."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    quotient = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=quotient, where=below != 0)
    return quotient


def mean_of_defined(values: Float[np.ndarray, "*sets label"]) -> Float[np.ndarray, "*sets"]:
    """Return the mean over the last axis without its NaN entries; NaN where all are NaN."""
    defined = ~np.isnan(values)
    return divide(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


class Steps(NamedTuple):
    """The steps down the distinct scores of one class: how many rows of each cluster are in each.

    Neighbouring steps without a positive row are one: they add nothing to an area over recall.
    """

    true: csr_array
    """(step, cluster): the positive rows."""
    everyone: csr_array
    """(step, cluster): all rows."""


def steps_of(
    labels: Bool[np.ndarray, " row"],
    scores: Float[np.ndarray, " row"],
    cluster: Int[np.ndarray, " row"],
    n_clusters: int,
) -> Steps:
    """Sort the rows of one class by falling score, once for all sets of clusters."""
    if not len(labels):
        return Steps(csr_array((0, n_clusters)), csr_array((0, n_clusters)))
    order = np.argsort(-scores, kind="stable")
    falling, positive, members = scores[order], labels[order], cluster[order]
    starts = np.flatnonzero(np.append(True, falling[1:] != falling[:-1]))
    has_positive = np.logical_or.reduceat(positive, starts)
    starts = starts[has_positive | np.append(True, has_positive[:-1])]
    shape = (len(starts), n_clusters)
    row_ends = np.append(starts, len(order))
    everyone = csr_array((np.ones(len(order)), members, row_ends), shape)
    true_ends = np.append(0, np.cumsum(positive))[row_ends]
    return Steps(csr_array((np.ones(true_ends[-1]), members[positive], true_ends), shape), everyone)


def areas(steps: Steps, counts: Float[np.ndarray, "cluster set"]) -> Float[np.ndarray, "2 set"]:
    """Return AUROC and AUPRC of one class in every set of rows.

    Set s holds the rows of cluster c `counts[c, s]` times: once, or as often as it was drawn.
    AUROC counts ties half; AUPRC is the average precision, a step function without interpolation.
    """
    true, everyone = steps.true @ counts, steps.everyone @ counts
    true_so_far, hits = np.cumsum(true, axis=0), np.cumsum(everyone, axis=0)
    n_true, n_false = true.sum(axis=0), (everyone - true).sum(axis=0)
    # false positives still to come, those of the step itself half
    beaten = n_false - (hits - true_so_far) + (everyone - true) / 2
    wins = np.einsum("ij,ij->j", true, beaten)
    precision = true_so_far / np.maximum(hits, 1.0)  # both are 0 above the first row of a set
    auprc = divide(np.einsum("ij,ij->j", true, precision), n_true)
    return np.stack([divide(wins, n_true * n_false), auprc])


def areas_per_class(labels: Labels, scores: Scores) -> Float[np.ndarray, "2 label"]:
    """Return AUROC and AUPRC of every class."""
    one_cluster, once = np.zeros(len(labels), dtype=np.int64), np.ones((1, 1))
    classes = [steps_of(*column, one_cluster, 1) for column in zip(labels.T, scores.T, strict=True)]
    return np.concatenate([areas(steps, once) for steps in classes], axis=1)


def areas_micro(labels: Labels, scores: Scores) -> Float[np.ndarray, " 2"]:
    """Return AUROC and AUPRC over all label entries at once."""
    one_cluster, once = np.zeros(labels.size, dtype=np.int64), np.ones((1, 1))
    return areas(steps_of(labels.ravel(), scores.ravel(), one_cluster, 1), once)[:, 0]


def auroc_per_class(labels: Labels, scores: Scores) -> Float[np.ndarray, " label"]:
    """Return each class's area under the receiver operating characteristic."""
    return np.asarray(areas_per_class(labels, scores)[0])


def auprc_per_class(labels: Labels, scores: Scores) -> Float[np.ndarray, " label"]:
    """Return each class's average precision."""
    return np.asarray(areas_per_class(labels, scores)[1])


def auroc_macro(labels: Labels, scores: Scores) -> float:
    """Return the official AUROC: the mean over classes that have positives and negatives."""
    return float(mean_of_defined(auroc_per_class(labels, scores)))


def auprc_macro(labels: Labels, scores: Scores) -> float:
    """Return the official AUPRC: the mean over classes that have positives."""
    return float(mean_of_defined(auprc_per_class(labels, scores)))


def auroc_micro(labels: Labels, scores: Scores) -> float:
    """Return the public code's AUROC, over all label entries at once."""
    return float(areas_micro(labels, scores)[0])


def auprc_micro(labels: Labels, scores: Scores) -> float:
    """Return the public code's AUPRC, over all label entries at once."""
    return float(areas_micro(labels, scores)[1])


def f_per_class(labels: Labels, decisions: Decisions) -> Float[np.ndarray, " label"]:
    """Return each class's F-measure, 2 TP / (2 TP + FP + FN); NaN if neither true nor predicted."""
    both = np.count_nonzero(labels & decisions, axis=0)
    return divide(2 * both, labels.sum(axis=0) + decisions.sum(axis=0))


def f_macro(labels: Labels, decisions: Decisions) -> float:
    """Return the official F-measure: the mean over classes that are true or predicted anywhere."""
    return float(mean_of_defined(f_per_class(labels, decisions)))


def f_micro(labels: Labels, decisions: Decisions) -> float:
    """Return the F-measure over all label entries at once."""
    return _ratio(
        2 * np.count_nonzero(labels & decisions),
        np.count_nonzero(labels) + np.count_nonzero(decisions),
    )


def precision_micro(labels: Labels, decisions: Decisions) -> float:
    """Return TP / (TP + FP) over all label entries; NaN when nothing is predicted."""
    return _ratio(np.count_nonzero(labels & decisions), np.count_nonzero(decisions))


def recall_micro(labels: Labels, decisions: Decisions) -> float:
    """Return TP / (TP + FN) over all label entries; NaN when there is no positive."""
    return _ratio(np.count_nonzero(labels & decisions), np.count_nonzero(labels))


def exact_match(labels: Labels, decisions: Decisions) -> float:
    """Return the fraction of rows whose every class is right, the official accuracy."""
    return _ratio(np.count_nonzero((labels == decisions).all(axis=1)), len(labels))


def entry_accuracy(labels: Labels, decisions: Decisions) -> float:
    """Return the fraction of label entries that are right, the public code's `accuracy`."""
    return _ratio(np.count_nonzero(labels == decisions), labels.size)


def _ratio(above: np.integer | int, below: np.integer | int) -> float:
    return float(above / below) if below else float("nan")
