"""A cluster of several nodes: pools follow it while a run goes on, and a lost node costs no unit."""

import pytest

from tests.curate.engines.made import Heavy, Square, run, units

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def cluster():
    """A head node of one CPU that this process is connected to."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def engine(cluster):
    from curate.engines.ray_engine import RayEngine

    return RayEngine()


def nodes(outcome):
    return {clip["versions"] for clips in outcome.clips.values() for clip in clips}


def test_a_node_that_joins_a_running_job_is_used(cluster, engine, tmp_path):
    added = []

    def add_once(event, outcome):
        if not added:
            added.append(cluster.add_node(num_cpus=1))

    outcome = run(engine, tmp_path / "catalog", (Square(),), units(120, slow=0.25), seen=add_once)
    assert set(outcome.clips) == set(range(120))
    assert len(nodes(outcome)) == 2


@pytest.mark.parametrize("stage", [Square, Heavy])
def test_a_node_that_is_lost_costs_no_unit(cluster, engine, tmp_path, stage):
    second = cluster.add_node(num_cpus=1)
    lost = []

    def lose_once(event, outcome):
        if not lost and outcome.total.done > 8:
            lost.append(cluster.remove_node(second))

    outcome = run(engine, tmp_path / "catalog", (stage(),), units(40, slow=0.2), seen=lose_once)
    assert lost
    assert outcome.failures == dict.fromkeys(range(40))
    assert {n: len(clips) for n, clips in outcome.clips.items()} == dict.fromkeys(range(40), 1)
