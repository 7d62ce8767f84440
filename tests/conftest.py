"""What all tests share."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("busy machine", deadline=None)  # a test asserts no time
settings.load_profile("busy machine")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """One order of sums everywhere, and no fight for cores between tests side by side."""
    torch.set_num_threads(1)
