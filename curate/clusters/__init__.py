"""Concepts among the clips of a catalog."""

from curate.clusters.settings import ClusterSettings
from curate.clusters.stage import Clusters

__all__ = ["ClusterSettings", "Clusters"]
