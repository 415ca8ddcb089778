"""Which stages share a worker, and how many workers each pool gets on the machines there are."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from curate.errors import UserError
from stages.base import Needs, UnitStage


@dataclass(frozen=True)
class PoolPlan:
    """Neighbouring stages with the same needs, run by `size` workers of `needs` each."""

    stages: tuple[UnitStage, ...]
    needs: Needs
    size: int

    @property
    def name(self) -> str:
        return "+".join(stage.name for stage in self.stages)


def make_pools(stages: tuple[UnitStage, ...], cpus: float, gpus: float) -> list[PoolPlan]:
    """Pools that fit into what there is: at least one worker each, shares shrunk where CPUs or GPUs are few.

    An actor that asks for more than there is would wait for ever, so pools never do. Pools
    that are small by their nature (a GPU each, or `workers`) are sized first, the others share the CPUs left: those
    that take part of a GPU too, with at most as many workers as the GPUs have such parts.
    Raises UserError for a stage that needs more GPUs than there are.
    """
    groups: list[list[UnitStage]] = []
    for stage in stages:
        if groups and groups[-1][0].needs == stage.needs:
            groups[-1].append(stage)
        else:
            groups.append([stage])
    needs = [group[0].needs for group in groups]
    for group, need in zip(groups, needs, strict=True):
        if need.gpus > gpus:
            raise UserError(
                f"stage {group[0].name!r} needs {need.gpus:g} GPU, there is {gpus:g}: run it on a machine with one"
            )
    whole = sum(need.gpus for need in needs if need.gpus >= 1)
    fixed = [max(1, int(gpus / whole)) if need.gpus >= 1 else need.workers for need in needs]
    left = cpus - sum(size * need.cpus for size, need in zip(fixed, needs, strict=True) if size)
    free = sum(need.cpus for size, need in zip(fixed, needs, strict=True) if not size)
    rounds = max(1, int(left / free + NEARLY)) if free else 1
    sizes = [min(size or rounds, _most_workers(need, gpus)) for size, need in zip(fixed, needs, strict=True)]
    if _cpus(sizes, needs) > cpus:
        sizes = [
            size if need.gpus >= 1 else min(size, max(1, int(cpus))) for size, need in zip(sizes, needs, strict=True)
        ]
    wanted = _cpus(sizes, needs)
    cpu_share = min(1.0, cpus / wanted) if wanted else 1.0
    on_gpus = sum(size * need.gpus for size, need in zip(sizes, needs, strict=True))
    gpu_share = min(1.0, gpus / on_gpus) if on_gpus else 1.0
    return [
        PoolPlan(tuple(group), Needs(_floor(need.cpus * cpu_share), _gpus(need.gpus * gpu_share), need.workers), size)
        for group, need, size in zip(groups, needs, sizes, strict=True)
    ]


def _most_workers(need: Needs, gpus: float) -> int:
    """As many as the stage allows, and as the GPUs have such parts."""
    parts = int(gpus / need.gpus + 1e-6) if 0 < need.gpus < 1 else sys.maxsize
    return min(parts, need.workers or sys.maxsize)


def _cpus(sizes: list[int], needs: list[Needs]) -> float:
    """What pools of these sizes take."""
    return sum(size * need.cpus for size, need in zip(sizes, needs, strict=True))


NEARLY = 0.2  # of a worker's share may be lacking: two CPUs and a helper of 0.1 are work for two


def _floor(share: float) -> float:
    """Ray counts in ten-thousandths; rounded up, shares would ask for more than there is."""
    return int(share * 1000 + 1e-6) / 1000


def _gpus(share: float) -> float:
    """Ray shares one GPU, but gives no GPU and a half."""
    return float(int(share + 1e-6)) if share > 1 else _floor(share)
