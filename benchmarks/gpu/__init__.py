"""The parts of `gpu_check.py`, a module each: `run(report, device)` times or compares its cases one by one."""
