"""The cluster files say what Ray and Kubernetes can read, and agree with the image and with each other."""

import json
from pathlib import Path

import jsonschema
import yaml

INFRA = Path(__file__).parents[1] / "infra"


def read(name: str) -> dict:
    return yaml.safe_load((INFRA / name).read_text())


def test_the_cluster_file_follows_the_schema_that_ray_ships():
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(read("ray-cluster.yaml"), schema)


def test_the_job_runs_a_command_line_that_clipmill_has():
    from curate.cli.main import build_parser

    for entrypoint in (read("rayjob.yaml")["spec"]["entrypoint"],):
        name, *words = entrypoint.split()
        assert name == "clipmill"
        assert build_parser().parse_args(words).recipes == ["ingest"]


def test_every_container_runs_the_same_image():
    cluster = read("rayjob.yaml")["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    images = {c["image"] for group in groups for c in group["template"]["spec"]["containers"]}
    assert images == {read("ray-cluster.yaml")["docker"]["image"]}


def test_what_the_image_copies_is_in_the_repository():
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    sources = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert sources
    assert [name for name in sources if not (INFRA.parent / name).exists()] == []
