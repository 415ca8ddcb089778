"""Which stages share a worker, and how many workers each pool gets on the machines there are."""

from __future__ import annotations

from dataclasses import dataclass

from curate.errors import UserError
from stages.base import Needs, Stage


@dataclass(frozen=True)
class Pool:
    """Neighbouring stages with the same needs, run by `size` workers of `needs` each."""

    stages: tuple[Stage, ...]
    needs: Needs
    size: int

    @property
    def name(self) -> str:
        return "+".join(stage.name for stage in self.stages)


def make_pools(stages: tuple[Stage, ...], cpus: float, gpus: float) -> list[Pool]:
    """Pools that fit into what there is: at least one worker each, CPU shares shrunk where CPUs are few.

    Ray Data starves without a word when pools ask for more logical CPUs than exist, so they never may.
    Raises UserError for a stage that needs a GPU where there is none.
    """
    groups: list[list[Stage]] = []
    for stage in stages:
        if groups and groups[-1][0].needs == stage.needs:
            groups[-1].append(stage)
        else:
            groups.append([stage])
    for group in groups:
        if group[0].needs.gpus > gpus:
            raise UserError(
                f"stage {group[0].name!r} needs {group[0].needs.gpus:g} GPU, there is {gpus:g}: "
                "run it on a machine with one"
            )
    wanted = sum(group[0].needs.cpus for group in groups)
    shrink = min(1.0, cpus / wanted) if wanted else 1.0
    rounds = max(1, int(cpus / wanted)) if wanted else 1
    pools = []
    for group in groups:
        needs = group[0].needs
        size = rounds if not needs.gpus else max(1, int(gpus / needs.gpus))
        size = min(size, needs.workers or size)
        pools.append(Pool(tuple(group), Needs(round(needs.cpus * shrink, 3), needs.gpus, needs.workers), size))
    return pools
