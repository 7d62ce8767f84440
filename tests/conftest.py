"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Sums in one order on every machine, and tests that run side by side do not fight for cores."""
    torch.set_num_threads(1)
