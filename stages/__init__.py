"""Set, before torch is imported, what torch's threads do while they wait, and what Ctrl-C does."""

import os
import signal

# Waiting threads sleep. By default they spin: on cores that another process uses too, that made a
# training a hundred times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if "RANK" in os.environ:
    # one of several processes: whoever started it says that it was interrupted, they need not
    signal.signal(signal.SIGINT, signal.SIG_DFL)
