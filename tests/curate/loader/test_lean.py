"""The loader runs where nothing but torch, numpy, pyarrow and safetensors is installed."""

import subprocess
import sys

import pytest

SCRIPT = """
import importlib.metadata, re, sys

def needs(name, found):
    if name in found:
        return found
    found.add(name)
    for line in importlib.metadata.requires(name) or []:
        other = re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-")
        if "extra ==" not in line and other != "fsspec":  # torch names it, and runs without it
            try:
                needs(other, found)
            except importlib.metadata.PackageNotFoundError:
                pass
    return found

allowed = set()
for name in ("torch", "numpy", "pyarrow", "safetensors"):
    needs(name, allowed)
modules = importlib.metadata.packages_distributions()
blocked = {m for m, names in modules.items() if not {n.lower().replace("_", "-") for n in names} & allowed}
blocked -= {"curate", "stages", "models", "train"}
assert {"pydantic", "duckdb", "fsspec", "xxhash", "yaml", "deltalake", "av", "rich"} <= blocked, blocked

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from curate.loader import LatentBatches, Loader

options = {"batch_size": 4, "verify": sys.argv[2]}
with Loader(sys.argv[1], **options) as loader:
    clips = [next(loader).clip_ids for _ in range(6)]
    assert loader.state_dict()["step"] == 6
assert next(iter(LatentBatches(sys.argv[1], **options)))["clip_ids"] == clips[0]
print(clips)
"""


@pytest.mark.slow
def test_a_machine_with_torch_numpy_and_pyarrow_alone_loads(dataset):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(dataset), "off"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    from curate.loader import Loader

    with Loader(dataset, batch_size=4) as loader:
        assert done.stdout.strip() == str([next(loader).clip_ids for _ in range(6)])
