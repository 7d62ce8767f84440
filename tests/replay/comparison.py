"""Rows of the parity table: what was found, held against what the original gives."""

from dataclasses import dataclass, field

import numpy as np
import torch

FORWARD = 2e-5
"""Absolute, of activations and logits in fp32."""
LOSS = 1e-6
"""Relative, of losses and of what else is one number of a forward pass."""
CMSC = 3e-6
"""Relative, of CMSC alone: it divides cosines by 0.1, which makes ten of one rounding."""
GRADIENT = 1e-4
"""Relative to the largest gradient of the parameter."""
TRAJECTORY = 1e-5
"""Of parameters absolute, of losses and gradient norms relative."""
SCORE = 1e-12
"""Absolute, of scores: float64 on both sides."""


@dataclass(frozen=True)
class Row:
    """One comparison."""

    fixture: str
    quantity: str
    absolute: float
    relative: float
    tolerance: str
    ok: bool
    group: str
    """Rows of one group are shown as one, by their worst."""
    share: float
    """The error as a share of what is tolerated."""


@dataclass
class Comparison:
    """Collects the rows of one fixture."""

    fixture: str
    rows: list[Row] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)

    def close(
        self,
        quantity: str,
        found: object,
        expected: object,
        *,
        absolute: float | None = None,
        relative: float | None = None,
        group: str = "",
    ) -> None:
        """Compare with a tolerance: absolute, or relative to the largest expected value.

        NaN and infinities have to stand in the same places.
        """
        here, there = _array(found), _array(expected)
        if here.shape != there.shape:
            self.fail(quantity, f"expected shape {there.shape}, found {here.shape}", group)
            return
        finite = np.isfinite(there)
        if not np.array_equal(here[~finite], there[~finite], equal_nan=True):
            self.fail(quantity, "NaN or infinity in other places", group)
            return
        error = float(np.abs(here[finite] - there[finite]).max(initial=0.0))
        largest = float(np.abs(there[finite]).max(initial=0.0))
        allowed = absolute if absolute is not None else (relative or 0.0) * largest
        told = f"{absolute:.0e} abs" if absolute is not None else f"{relative:.0e} rel"
        self._add(quantity, error, largest, allowed, told, group)

    def exact(self, quantity: str, found: object, expected: object, group: str = "") -> None:
        """Compare what has to be equal: counts, labels, masks."""
        here, there = _array(found), _array(expected)
        if here.shape != there.shape:
            self.fail(quantity, f"expected shape {there.shape}, found {here.shape}", group)
            return
        wrong = (here != there) & ~(np.isnan(here) & np.isnan(there))
        error = float(np.abs(here - there)[wrong].max(initial=0.0))
        largest = float(np.abs(there[np.isfinite(there)]).max(initial=0.0))
        self._add(quantity, error, largest, 0.0, "exact", group)

    def fail(self, quantity: str, reason: str, group: str = "") -> None:
        """Note what could not be compared, which counts as out."""
        nothing = float("nan")
        row = Row(self.fixture, quantity, nothing, nothing, reason, False, group, float("inf"))
        self.rows.append(row)

    def skip(self, quantity: str) -> None:
        """Note a part of the fixture that nothing is held against."""
        self.not_compared.append(f"{self.fixture}: {quantity}")

    def _add(
        self, quantity: str, error: float, largest: float, allowed: float, told: str, group: str
    ) -> None:
        relative = error / largest if largest else (0.0 if error == 0 else float("inf"))
        share = error / allowed if allowed else (0.0 if error == 0 else float("inf"))
        ok = bool(error <= allowed)
        self.rows.append(Row(self.fixture, quantity, error, relative, told, ok, group, share))


def _array(value: object) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=np.float64)
