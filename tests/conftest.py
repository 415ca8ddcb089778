"""Before anything loads torch."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it: a busy machine slows tests, no more
