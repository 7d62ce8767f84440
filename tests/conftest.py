"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """One order of sums everywhere, and no fight for cores between tests side by side."""
    torch.set_num_threads(1)
