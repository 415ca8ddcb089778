"""Sends the numbers of a training run to Weights & Biases."""

from __future__ import annotations

from curate.errors import UserError
from train.config.training import TrainConfig
from train.devices.parallel import Ranks
from train.run.log import Sink


def wandb_sink(config: TrainConfig, output: str, ranks: Ranks) -> tuple[Sink, ...]:
    """One sink for the first rank if the config says `wandb`, else none. The W&B run is named after the run folder and
    is resumed with it. UserError without the package.
    """
    if not config.wandb or not ranks.first:
        return ()
    try:
        import wandb  # type: ignore[import-not-found, unused-ignore]  # the user's choice, in none of our extras
    except ImportError:
        raise UserError("wandb is true, but the package is not installed: pip install wandb") from None
    name = output.rstrip("/").rsplit("/", 1)[-1]
    run = wandb.init(project="clipmill", name=name, id=name, resume="allow", dir=output, config=config.to_dict())
    return (lambda step, numbers: run.log(numbers, step=step),)
