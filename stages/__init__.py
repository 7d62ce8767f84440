"""Set, before torch is imported, what torch's threads do while they wait."""

import os

# Waiting threads sleep. By default they spin: on cores that another process uses too, that made a
# training a hundred times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
