"""Commands that train networks and sample from them: train, sample."""

from __future__ import annotations

import argparse
import json

from curate.cli.arguments import Commands, positive


def add(commands: Commands) -> None:
    train = commands.add_parser("train", help="train a network: a transformer on a dataset, a VAE on a catalog")
    train.add_argument("config", metavar="CONFIG", help="JSON or YAML; its kind is dit, tokens or vae")
    train.add_argument("--dataset", metavar="DIR", help="what dit and tokens learn from")
    train.add_argument("--shards", metavar="URI", help="what holds shards/, if not the catalog that the dataset names")
    train.add_argument("--catalog", metavar="URI", help="whose clips a vae learns from")
    train.add_argument("-o", "--output", required=True, metavar="RUN_DIR")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in RUN_DIR")
    train.add_argument("--set", action="append", default=[], metavar="A.B=C", help="e.g. optimizer.lr=0.0003")
    train.set_defaults(command=_train)

    sample = commands.add_parser("sample", help="video from a trained run and a text prompt")
    sample.add_argument("run", metavar="RUN_DIR")
    sample.add_argument("--prompt", required=True, nargs="+", action="extend", metavar="TEXT")
    sample.add_argument("-o", "--output", required=True, metavar="OUT", help=".mp4, .gif, or .png for a sheet")
    sample.add_argument("--seed", type=int, default=0, metavar="N")
    sample.add_argument("--steps", type=positive, default=50, metavar="N")
    sample.add_argument("--guidance", type=float, default=4.0, metavar="X", help="1 is none, default 4")
    sample.add_argument("--negative", metavar="TEXT", help="what to guide away from")
    sample.add_argument("--image", metavar="FILE", help="the first frame")
    sample.add_argument("--frames", type=positive, metavar="N")
    sample.add_argument("--bucket", metavar="TxHxW", help="one of the dataset's, e.g. 17x256x256")
    sample.add_argument(
        "--chain", type=positive, default=1, metavar="N", help="clips in a row, each continuing the last"
    )
    sample.add_argument("--sampler", default="euler", metavar="NAME")
    sample.add_argument("--vae", metavar="PATH", help="path of the VAE, if not where the run found it")
    sample.add_argument("--text-model", metavar="PATH", help="the same of the text encoder")
    sample.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    sample.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="of matrix products; auto: by device"
    )
    sample.add_argument(
        "--chunk", type=positive, metavar="FRAMES", help="that the VAE decodes at a time; chosen by size"
    )
    sample.set_defaults(command=_sample)


def _train(args: argparse.Namespace) -> int:
    from curate.training.command import run_train

    return run_train(
        args.config,
        dataset=args.dataset,
        catalog=args.catalog,
        output=args.output,
        resume=args.resume,
        settings=[*args.set, *([f"loader.root={json.dumps(args.shards)}"] if args.shards else [])],
    )


def _sample(args: argparse.Namespace) -> int:
    from curate.generate.sample import run_sample

    return run_sample(
        args.run,
        args.prompt,
        args.output,
        seed=args.seed,
        steps=args.steps,
        guidance=args.guidance,
        image=args.image,
        negative=args.negative,
        frames=args.frames,
        bucket=args.bucket,
        clips=args.chain,
        sampler=args.sampler,
        vae=args.vae,
        text_model=args.text_model,
        device=args.device,
        dtype=args.dtype,
        chunk=args.chunk,
    )
