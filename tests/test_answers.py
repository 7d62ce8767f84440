"""What is printed about a recording."""

import json

import numpy as np
import torch

from ecg_core.answers import NOTICE, answer_of, as_table, in_words, mean_probabilities
from ecg_core.classes import ABBREVIATIONS, SINUS_CLASS


def probabilities() -> np.ndarray:
    values = np.linspace(0.4, 0.01, 26)
    values[SINUS_CLASS] = 0.9
    return values


def test_the_likeliest_class_comes_first_and_alone_is_predicted() -> None:
    answer = answer_of("R1", (0, 1), 2, probabilities(), 0.5)
    assert answer["classes"][0]["abbreviation"] == "NSR"
    assert [row["predicted"] for row in answer["classes"]] == [True] + [False] * 25
    assert {row["abbreviation"] for row in answer["classes"]} == set(ABBREVIATIONS)
    assert json.loads(json.dumps(answer)) == answer


def test_every_form_of_the_answer_says_what_it_is_not_for() -> None:
    answer = answer_of("R1", (0, 1), 2, probabilities(), 0.5)
    assert answer["notice"] == NOTICE == "For research, not for diagnosis."
    assert NOTICE in as_table(answer)
    assert "R1: leads I II; 2 segments" in as_table(answer)
    assert as_table(answer).count("\n* ") == 2
    assert in_words(answer).splitlines()[0].split() == ["*", "NSR", "0.900"]


def test_leads_that_are_not_given_are_zero_and_segments_are_averaged() -> None:
    segments = np.ones((5, 12, 10), dtype=np.float32)
    seen = []

    def model(source: torch.Tensor) -> torch.Tensor:
        seen.append(source.sum(dim=(0, 2)).tolist())
        return torch.tensor([0.0, 2.0]).repeat(len(source), 1) * torch.arange(len(source))[:, None]

    mean = mean_probabilities(model, segments, (0, 7), batch_size=3)
    assert seen[0] == [30.0 if lead in (0, 7) else 0.0 for lead in range(12)]
    sigmoid = 1 / (1 + np.exp(-2.0 * np.array([0, 1, 2, 0, 1])))
    assert mean.tolist() == [0.5, float(np.float64(mean[1]))]
    assert abs(mean[1] - sigmoid.mean()) < 1e-6
