"""A named random generator for every use of chance.

What belongs to a segment is keyed by (seed, use, epoch, record, segment), what belongs to a
micro-batch by (seed, use, update, global micro-batch). So the number of workers or processes, the
order of files, and a resumed run change nothing.
"""

import hashlib

import numpy as np
import torch

Key = int | str


def seed_of(*key: Key) -> int:
    """Return 63 bits that depend on nothing but the key, the same on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(*key: Key) -> np.random.Generator:
    """Return numpy's generator for one named use of chance, such as ("lead mask", seed, epoch)."""
    return np.random.Generator(np.random.PCG64(seed_of(*key)))


def torch_generator(*key: Key) -> torch.Generator:
    """Return a CPU generator of torch for one named use of chance."""
    return torch.Generator().manual_seed(seed_of(*key))
