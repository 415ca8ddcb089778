"""`clipmill train`: trains a network from a config and a dataset (or, for a VAE, a catalog) into a run folder.

A run on latents needs only torch, numpy, pyarrow and safetensors, and works under torchrun too.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import UserError, first_line
from curate.interrupts import STOPPED, Interrupts
from models.out_of_memory import is_out_of_memory
from models.settings.validation import ConfigError
from train.config.changes import with_settings
from train.config.training import TrainConfig

if TYPE_CHECKING:
    from curate.datasets.files import Dataset

FAILED = 1
KINDS = ("dit", "tokens", "vae")


def run_train(
    config: str | Path,
    *,
    dataset: str | None = None,
    catalog: str | None = None,
    output: str,
    resume: bool = False,
    settings: Sequence[str] = (),
) -> int:
    """Trains the `kind` of the config: dit and tokens on `dataset`, vae on `catalog`. Returns the exit code.

    `settings` ("a.b=c") replace those of the config. UserError, in one line, for what can't work.
    """
    try:
        values = with_settings(read_config(config), settings)
        kind = values.get("kind", "dit")
        if kind not in KINDS:
            raise UserError(f"{config}: kind {kind!r}: there are {', '.join(KINDS)}")
        if kind == "vae":
            if catalog is None or dataset is not None:
                raise UserError(f"{config}: kind vae learns from the clips of a catalog: give --catalog URI")
            from curate.training.vae import run_train_vae

            return run_train_vae(values, catalog, output, resume)
        if dataset is None or catalog is not None:
            raise UserError(
                f"{config}: kind {kind} learns from a dataset: give --dataset DIR (`clipmill dataset create` makes one)"
            )
        return _train(TrainConfig.from_dict(values), dataset, output, resume)
    except (ConfigError, UserError) as error:
        if int(os.environ.get("RANK", "0")):  # every rank has found the same error: the first one reports it
            return 2
        raise UserError(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message = f"not enough memory: a smaller model or batch_size takes less ({first_line(error)})"
        if rank := int(os.environ.get("RANK", "0")):  # the other ranks do not have this error
            print(f"clipmill: rank {rank}: {message}", file=sys.stderr)
            return 2
        raise UserError(message) from error


def read_config(path: str | Path) -> dict[str, Any]:
    """The settings in a JSON or YAML file. UserError for a file that can't be read or holds no settings by name."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config {path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        found = json.loads(text)
    except ValueError as no_json:
        try:
            import yaml
        except ImportError:
            raise UserError(f"config {path} is not JSON ({no_json}); for YAML: pip install pyyaml") from no_json
        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"config {path} is neither JSON nor YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise UserError(f"config {path} holds no settings by name, but {str(found)[:60]}")
    return found


def _train(config: TrainConfig, dataset: str, output: str, resume: bool) -> int:
    from curate.training.console import training_console
    from curate.training.data import training_data
    from curate.training.run_notes import note_descendant, note_run
    from curate.training.sinks import wandb_sink
    from train.devices.parallel import init_ranks
    from train.loop.tasks import objective_from
    from train.loop.training import Training
    from train.optimization.optimizer import DivergedError
    from train.run.lineage import RUN_ID, ancestors_of

    with (
        init_ranks() as ranks,
        Interrupts() as interrupts,
        training_console(config.kind, config.steps, quiet=not ranks.first) as console,
    ):
        data, loader, opened = training_data(dataset, config, ranks, Path(output) if resume else None)
        vae, text_model = _checked_vae(config, opened), _checked_text_model(config)
        extra = {
            "kind": config.kind,
            "dataset": os.path.abspath(dataset),
            "contract": data.contract,
            "conditions": list(data.scales),
            "text": data.contract.get("text"),
            "text_model": text_model,
            "vae": vae,
            "buckets": {
                name: {"samples": bucket.samples, "latent": list(bucket.latent)}
                for name, bucket in opened.buckets.items()
            },
        }
        if config.kind == "dit":
            extra["objective"] = objective_from(config).to_dict()
        sheets = None
        if config.samples.every and (ranks.first or config.parallel == "fsdp"):
            from curate.training.sheets import Sheets

            sheets = Sheets(config, data, opened, extra, Path(output), ranks)
        training = Training(
            config,
            data,
            output,
            ranks,
            resume=resume,
            extra=extra,
            stop=lambda: interrupts.seen,
            draw=sheets,
            sinks=wandb_sink(config, output, ranks),
            console=console,
        )
        if ranks.first:
            note_run(os.path.abspath(dataset), Path(output), training.about[RUN_ID])
            note_descendant(ancestors_of(training.about), Path(output), training.about[RUN_ID])
        if resume and ranks.first and training.step >= config.steps:
            print(f"{output} has its {config.steps:,} steps already: nothing is left to do", file=sys.stderr)
        if resume and ranks.first and not training.step:
            print(f"{output} has no checkpoint yet: the run starts from step 0", file=sys.stderr)
        if ranks.first:
            seen = training.network.settings.conditions
            print(f"conditions that the network sees: {', '.join(seen) or 'none'}", file=sys.stderr)
        try:
            training.run()
        except UserError as error:  # a clip that can't be read, which only this rank has tried
            if not ranks.first:
                print(f"clipmill: rank {ranks.rank}: {error}", file=sys.stderr)
            raise
        except DivergedError as error:
            if ranks.first:
                print(f"clipmill: {error}; earlier checkpoints are in {output}", file=sys.stderr)
            return FAILED
        finally:
            loader.close()
        if training.step < config.steps:
            if ranks.first:
                print(f"stopped after step {training.step:,}; --resume goes on", file=sys.stderr)
            return STOPPED
        if ranks.first:
            command = f"clipmill sample {shlex.quote(output)} --prompt TEXT -o samples.png"
            print(f"{output} holds the network after {training.step:,} steps: {command}", file=sys.stderr)
    return 0


def _checked_vae(config: TrainConfig, dataset: Dataset) -> str | None:
    """The path of the VAE. UserError, naming the differences, if it is not the VAE of the dataset's contract."""
    if config.vae is None:
        return None
    try:
        from stages.base import SettingsError
        from stages.latent_coders.describe import describe_coder
    except ImportError as error:
        raise UserError(
            f"vae: reading it needs the package {error.name}; a run without `vae` does not need it"
        ) from error
    try:
        info = describe_coder(config.vae)
    except SettingsError as error:
        raise UserError(f"vae: {error}") from error
    contract = dataset.contract
    pairs = [
        (name, getattr(info, name), getattr(contract, name))
        for name in ("fingerprint", "channels", "time_stride", "first_frame", "space_stride", "codebook")
    ]
    if found := [f"{name} {_short(own)}, of the dataset {_short(other)}" for name, own, other in pairs if own != other]:
        raise UserError(f"vae {config.vae} is not the one that made the dataset {dataset.name}: {'; '.join(found)}")
    return _absolute(config.vae)


def _checked_text_model(config: TrainConfig) -> str | None:
    """The path or name of the text encoder. UserError for what is neither a folder nor a model that can be loaded; a
    name is accepted unchecked where the packages to check it are not installed.
    """
    path = config.text_model
    if path is None or os.path.isdir(path):
        return path and os.path.abspath(path)
    try:
        from curate.generate.text_to_video import with_tag
        from stages.base import SettingsError
        from stages.text_encoders.describe import describe_text
        from stages.text_encoders.settings import TextEncoderSettings
    except ImportError:
        return path
    try:
        model, tag = with_tag(path)
        describe_text(TextEncoderSettings(model=model, pretrained=tag))
    except SettingsError as error:
        raise UserError(f"text_model: {error}") from error
    return _absolute(path)


def _absolute(model: str) -> str:
    """The absolute path of a folder; the name of a model on a hub unchanged."""
    return os.path.abspath(model) if os.path.exists(model) else model


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 16 else str(value)
