"""Read answers as the PhysioNet/CinC Challenge 2021 publishes its rules, and score them in loops.

Nothing of ecg_core is used: weights.csv is read here again. The rules: labels stand in a header's
`# Dx:` line, answers in RECORD_ID.csv with four lines (#record, class codes, decisions,
probabilities), in any order of classes. Codes joined by | are one class: it is true or predicted if
any of its codes is, its probability is the mean. Codes that are not scored count nothing.
"""

import math
from pathlib import Path

WEIGHTS = Path(__file__).parents[1] / "ecg_core" / "weights.csv"
SINUS = "426783006"


def read_weights() -> tuple[list[set[str]], list[list[float]]]:
    """Return the codes of each class, and its row of rewards."""
    lines = [line.split(",") for line in WEIGHTS.read_text().splitlines()]
    return [set(name.split("|")) for name in lines[0][1:]], [
        [float(cell) for cell in line[1:]] for line in lines[1:]
    ]


def read_labels(header: Path) -> set[str]:
    """Return the codes of a header's diagnoses."""
    (line,) = [line for line in header.read_text().splitlines() if line.startswith("# Dx:")]
    return {code.strip() for code in line.removeprefix("# Dx:").split(",")}


def read_answer(file: Path) -> dict[str, tuple[bool, float]]:
    """Return decision and probability by code."""
    name, codes, decisions, probabilities = file.read_text().splitlines()
    assert name == f"#{file.stem}"
    columns = [[cell.strip() for cell in line.split(",")] for line in (decisions, probabilities)]
    assert {*columns[0]} <= {"0", "1"}
    chances = [0.0 if math.isnan(float(cell)) else float(cell) for cell in columns[1]]
    found = zip(codes.split(","), columns[0], chances, strict=True)
    return {code.strip(): (decided == "1", chance) for code, decided, chance in found}


def score_answers(headers: Path, answers: Path) -> float:
    """Return the Challenge's score of a folder of answers."""
    classes, weights = read_weights()
    sinus = [SINUS in codes for codes in classes]
    observed = correct = inactive = 0.0
    for header in sorted(headers.glob("*.hea")):
        codes, answer = read_labels(header), read_answer(answers / f"{header.stem}.csv")
        truth = [bool(merged & codes) for merged in classes]
        said = [any(answer[code][0] for code in merged if code in answer) for merged in classes]
        observed += _reward(truth, said, weights)
        correct += _reward(truth, truth, weights)
        inactive += _reward(truth, sinus, weights)
    return (observed - inactive) / (correct - inactive) if correct != inactive else 0.0


def _reward(truth: list[bool], said: list[bool], weights: list[list[float]]) -> float:
    either = max(1, sum(a or b for a, b in zip(truth, said, strict=True)))
    pairs = [(j, k) for j, a in enumerate(truth) if a for k, b in enumerate(said) if b]
    return sum(weights[j][k] for j, k in pairs) / either


def write_header(folder: Path, record_id: str, codes: list[str]) -> None:
    """Write what the reader needs of a header."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{record_id}.hea").write_text(
        f"{record_id} 12 500 5000\n# Age: 50\n# Dx: {','.join(codes)}\n"
    )
