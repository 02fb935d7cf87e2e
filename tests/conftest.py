"""Tests run side by side, one process a core: numerical libraries then get one thread each."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
