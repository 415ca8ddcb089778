"""`python -m curate.cli`: the command line for torchrun, which starts modules."""

from __future__ import annotations

import sys

from curate.cli.main import main

code = main()
if "torch" in sys.modules:
    from train.devices.parallel import exit_process

    exit_process(code)
sys.exit(code)
