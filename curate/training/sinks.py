"""Where else the numbers of a run go, if asked."""

from __future__ import annotations

from curate.errors import UserError
from train.config.training import TrainConfig
from train.devices.parallel import Ranks
from train.run.log import Sink


def wandb_sink(config: TrainConfig, output: str, ranks: Ranks) -> tuple[Sink, ...]:
    """To Weights & Biases, in a run that is named after the folder and goes on with it."""
    if not config.wandb or not ranks.first:
        return ()
    try:
        import wandb
    except ImportError:
        raise UserError("wandb is true, but the package is not installed: pip install wandb") from None
    name = output.rstrip("/").rsplit("/", 1)[-1]
    run = wandb.init(project="clipmill", name=name, id=name, resume="allow", dir=output, config=config.to_dict())
    return (lambda step, numbers: run.log(numbers, step=step),)
