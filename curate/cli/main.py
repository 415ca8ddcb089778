"""The command line: arguments in, one call out. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable

from curate.errors import DamagedError, EngineError, UserError

FAILED, USAGE = 1, 2
BELOW = ("duckdb", "_duckdb", "_internal", "deltalake", "botocore", "aiobotocore")  # _internal is deltalake's own


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 all well; 1 finished with something failed or mismatched; 2 bad usage or settings."""
    # Threads of torch that spin while they wait crawl as soon as another process has a core: 130 times, measured.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        code = command(args)
        sys.stdout.flush()  # here, where a full disk is one line
        return code
    except UserError as error:
        print(f"clipmill: {error}", file=sys.stderr)
        return USAGE
    except EngineError as error:
        print(f"clipmill: {error}; what was finished is committed, the same command goes on", file=sys.stderr)
        return FAILED
    except DamagedError as error:
        print(f"clipmill: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("clipmill: stopped; what was committed stays, the same command goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone (`clipmill sql … | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if (said := _from_below(error)) is None:
            raise
        print(f"clipmill: {said}", file=sys.stderr)
        return FAILED


def _from_below(error: Exception) -> str | None:
    """One line for what disks, stores and damaged tables raise; None for a mistake of clipmill's own."""
    package = type(error).__module__.split(".")[0]
    if not isinstance(error, OSError) and package not in BELOW:
        return None
    said = " ".join(str(error).split())[:300]
    hint = "" if isinstance(error, OSError) else " (`clipmill verify` says what does not fit together)"
    return f"{said}{hint}"


class _Parser(argparse.ArgumentParser):
    """Wrong usage is one line too."""

    def error(self, message: str) -> None:
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="clipmill",
        description="From raw video to a trained video diffusion transformer, with every clip accounted for.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.set_defaults(command=lambda args: _version(args, parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    run = commands.add_parser("run", help="run recipes of pipelines.yaml")
    run.add_argument("recipes", nargs="+", metavar="RECIPE")
    _catalog(run)
    run.add_argument("--input", nargs="+", action="extend", metavar="X", help="folder, glob, URI or manifest")
    run.add_argument("--pipelines", metavar="FILE", help="default: ./pipelines.yaml, else clipmill's own")
    run.add_argument("--engine", choices=("ray", "inline"), default="ray")
    run.add_argument("--set", action="append", default=[], metavar="A.B=C", help="e.g. cut.min_seconds=0.5")
    run.add_argument("--limit", type=_positive, metavar="N", help="take at most N sources, or N clips")
    run.add_argument("--retry-failed", action="store_true", help="take failed sources and clips again")
    run.add_argument("--rebuild", action="store_true", help="make every source or clip again")
    run.set_defaults(command=_run)

    views = "sources, clips, runs, gates, thumbnails, and a table for each stage on clips"
    sql = commands.add_parser("sql", help=f"ask SQL of the catalog (views: {views})")
    sql.add_argument("query", metavar="SELECT")
    _catalog(sql)
    sql.add_argument("--format", choices=("table", "csv", "json"), help="default: by the ending of -o, else table")
    sql.add_argument("-o", "--output", metavar="FILE")
    sql.set_defaults(command=_sql)

    search = commands.add_parser("search", help="clips by meaning: the nearest to a text, by their embeddings")
    search.add_argument("text", metavar="TEXT")
    _catalog(search)
    search.add_argument("-k", type=_positive, default=20, metavar="N", help="how many, default 20")
    search.add_argument("--where", metavar="SQL", help="a condition on the view clips, e.g. \"verdict = 'kept'\"")
    search.add_argument("--table", default="embeddings", help="the table of embeddings, default: embeddings")
    search.add_argument("--model", help="where the model lies, if not where the run found it")
    search.add_argument("--pretrained", help="its tag or checkpoint")
    search.add_argument("--format", choices=("table", "csv", "json"), default="table")
    search.add_argument("-o", "--output", metavar="FILE", help="a contact sheet of the hits (.png, .jpg, .webp)")
    search.set_defaults(command=_search)

    status = commands.add_parser("status", help="what is done, failed and pending, and why")
    _catalog(status)
    status.set_defaults(command=_status)

    verify = commands.add_parser("verify", help="reconcile ledger, tables and shards; exit 1 on any mismatch")
    _catalog(verify)
    verify.set_defaults(command=_verify)

    dataset = commands.add_parser("dataset", help="datasets for training, frozen from encoded clips")
    create = dataset.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "create", help="freeze a selection of encoded clips: no shard is rewritten"
    )
    create.add_argument("name", metavar="NAME")
    _catalog(create)
    create.add_argument("--select", required=True, metavar="SQL", help="gives clip_id of the clips to train on")
    create.add_argument("--weight", metavar="SQL", help="how often a clip is drawn, an expression over the view clips")
    create.add_argument("--conditions", metavar="A,B", help="numbers of a clip that the network is told")
    create.add_argument("--table", default="latents", help="the table of the encode stage, default: latents")
    create.add_argument("-o", "--output", default="datasets", metavar="DIR", help="default: ./datasets")
    create.set_defaults(command=_dataset_create)

    export = commands.add_parser("export", help="latents as Parquet files")
    _catalog(export)
    export.add_argument("--select", metavar="SQL", help="gives clip_id; default: every encoded clip")
    export.add_argument("--table", help="the table of the encode stage, where there are several")
    export.add_argument("-o", "--output", required=True, metavar="DIR")
    export.set_defaults(command=_export)

    train = commands.add_parser("train", help="train a network: a transformer on a dataset, a VAE on a catalog")
    train.add_argument("config", metavar="CONFIG", help="JSON or YAML; its kind is dit, tokens or vae")
    train.add_argument("--dataset", metavar="DIR", help="what dit and tokens learn from")
    train.add_argument("--shards", metavar="URI", help="what holds shards/, if not the catalog that the dataset names")
    train.add_argument("--catalog", metavar="URI", help="whose clips a vae learns from")
    train.add_argument("-o", "--output", required=True, metavar="RUN_DIR")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in RUN_DIR")
    train.add_argument("--set", action="append", default=[], metavar="A.B=C", help="e.g. optimizer.lr=0.0003")
    train.set_defaults(command=_train)

    sample = commands.add_parser("sample", help="video from a trained run, by words")
    sample.add_argument("run", metavar="RUN_DIR")
    sample.add_argument("--prompt", required=True, nargs="+", action="extend", metavar="TEXT")
    sample.add_argument("-o", "--output", required=True, metavar="OUT", help=".mp4, .gif, or .png for a sheet")
    sample.add_argument("--seed", type=int, default=0, metavar="N")
    sample.add_argument("--steps", type=_positive, default=50, metavar="N")
    sample.add_argument("--guidance", type=float, default=4.0, metavar="X", help="1 is none, default 4")
    sample.add_argument("--negative", metavar="TEXT", help="what to guide away from")
    sample.add_argument("--image", metavar="FILE", help="the first frame")
    sample.add_argument("--frames", type=_positive, metavar="N")
    sample.add_argument("--bucket", metavar="TxHxW", help="one of the dataset's, e.g. 17x256x256")
    sample.add_argument("--chain", type=_positive, default=1, metavar="N", help="clips in a row, each going on")
    sample.add_argument("--sampler", default="euler", metavar="NAME")
    sample.add_argument("--vae", metavar="PATH", help="where the VAE lies, if not where the run found it")
    sample.add_argument("--text-model", metavar="PATH", help="the same of the text encoder")
    sample.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    sample.set_defaults(command=_sample)

    demo = commands.add_parser("demo", help="the whole way on made-up films, no download")
    demo.add_argument("-o", "--output", default="demo", metavar="DIR")
    demo.set_defaults(command=_demo)
    return parser


def _catalog(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--catalog", required=True, metavar="URI", help="folder or bucket of the catalog")


def _positive(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return number


def _version(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if args.version:
        import importlib.metadata

        print(importlib.metadata.version("clipmill"))
        return 0
    parser.print_help()
    return USAGE


def _run(args: argparse.Namespace) -> int:
    from curate.run.command import RunOptions, run_recipes

    options = RunOptions(args.engine, args.limit, args.retry_failed, args.rebuild)
    return run_recipes(args.recipes, args.catalog, args.input, args.pipelines, tuple(args.set), options)


def _sql(args: argparse.Namespace) -> int:
    from curate.query.sql import print_query

    return print_query(args.catalog, args.query, args.format, args.output)


def _search(args: argparse.Namespace) -> int:
    from curate.query.search import run_search

    return run_search(
        args.catalog,
        args.text,
        k=args.k,
        where=args.where,
        table=args.table,
        model=args.model,
        pretrained=args.pretrained,
        form=args.format,
        output=args.output,
    )


def _status(args: argparse.Namespace) -> int:
    from curate.catalog.catalog import Catalog
    from curate.run.status import print_status

    return print_status(Catalog.open(args.catalog))


def _verify(args: argparse.Namespace) -> int:
    from curate.catalog.catalog import Catalog
    from curate.run.verify import verify

    notes: list[str] = []
    problems = verify(Catalog.open(args.catalog), notes)
    for problem in problems:
        print(problem)
    for note in notes:
        print(f"note: {note}")
    print(f"{len(problems)} mismatches" if problems else "verified: ledger, tables and shards agree")
    return FAILED if problems else 0


def _dataset_create(args: argparse.Namespace) -> int:
    from curate.datasets.create import run_dataset_create

    conditions = [name.strip() for name in args.conditions.split(",")] if args.conditions is not None else None
    return run_dataset_create(
        args.name, args.catalog, args.select, args.weight, args.output, conditions=conditions, table=args.table
    )


def _export(args: argparse.Namespace) -> int:
    from curate.shards.export import run_export

    return run_export(args.catalog, args.output, args.select, args.table)


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
        chain=args.chain,
        sampler=args.sampler,
        vae=args.vae,
        text_model=args.text_model,
        device=args.device,
    )


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


def _demo(args: argparse.Namespace) -> int:
    from curate.demo.demo import demo

    return demo(args.output)
