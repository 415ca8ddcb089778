"""Commands that start and stop curation: run, stop, demo."""

from __future__ import annotations

import argparse
import sys

from curate.cli.arguments import Commands, add_catalog, filled, positive


def add(commands: Commands) -> None:
    run = commands.add_parser("run", help="run recipes of pipelines.yaml")
    run.add_argument("recipes", nargs="+", metavar="RECIPE")
    add_catalog(run)
    run.add_argument(
        "--input", type=filled, nargs="+", action="extend", metavar="X", help="folder, glob, URI or manifest"
    )
    run.add_argument("--pipelines", metavar="FILE", help="default: ./pipelines.yaml, else clipmill's own")
    run.add_argument(
        "--engine",
        choices=("auto", "ray", "inline"),
        default="auto",
        help="inline: in this process; ray: a pool or cluster of workers; auto (default): by the size of the work",
    )
    run.add_argument("--set", action="append", default=[], metavar="A.B=C", help="e.g. cut.min_seconds=0.5")
    run.add_argument("--limit", type=positive, metavar="N", help="take at most N sources, or N clips")
    run.add_argument("--retry-failed", action="store_true", help="take failed sources and clips again")
    run.add_argument("--rebuild", action="store_true", help="make every source or clip again")
    run.set_defaults(command=_run)

    stop = commands.add_parser("stop", help="ask every live run of a catalog to finish what it has in hand, and end")
    add_catalog(stop)
    stop.set_defaults(command=_stop)

    demo = commands.add_parser("demo", help="the whole way on made-up films, no download")
    demo.add_argument("-o", "--output", default="demo", metavar="DIR")
    demo.set_defaults(command=_demo)


def _run(args: argparse.Namespace) -> int:
    from curate.recipe.load import SHIPPED, pipelines_file
    from curate.run.command import RunOptions, run_recipes

    options = RunOptions(args.engine, args.limit, args.retry_failed, args.rebuild)
    code = run_recipes(args.recipes, args.catalog, args.input, args.pipelines, tuple(args.set), options)
    if pipelines_file(args.pipelines) == SHIPPED:
        print("these were clipmill's own recipes: there is no pipelines.yaml in this folder", file=sys.stderr)
    return code


def _stop(args: argparse.Namespace) -> int:
    from curate.run.stop import stop_runs

    return stop_runs(args.catalog)


def _demo(args: argparse.Namespace) -> int:
    from curate.demo.demo import demo

    return demo(args.output)
