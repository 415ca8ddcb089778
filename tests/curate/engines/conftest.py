import os

import pytest


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory):
    """A Ray of two CPUs, started from a folder whose own packages must not shadow ours, as a user's may have them."""
    here = os.getcwd()
    hostile = tmp_path_factory.mktemp("project")
    for name in ("models", "stages", "curate"):
        (hostile / name).mkdir()
        (hostile / name / "__init__.py").write_text("raise RuntimeError('a package of the user was imported')")
    (hostile / "train.py").write_text("raise RuntimeError('a module of the user was imported')")
    os.chdir(hostile)
    import ray

    from curate.engines.ray_cluster import ray_cluster

    with ray_cluster(cpus=2):
        yield ray
    os.chdir(here)
