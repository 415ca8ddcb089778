"""Commands that make datasets and exports of encoded clips: dataset create, export."""

from __future__ import annotations

import argparse

from curate.cli.arguments import Commands, add_catalog


def add(commands: Commands) -> None:
    dataset = commands.add_parser("dataset", help="datasets for training, frozen from encoded clips")
    create = dataset.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "create", help="freeze a selection of encoded clips: no shard is rewritten"
    )
    create.add_argument("name", metavar="NAME")
    add_catalog(create)
    create.add_argument("--select", required=True, metavar="SQL", help="gives clip_id of the clips to train on")
    create.add_argument("--weight", metavar="SQL", help="how often a clip is drawn, an expression over the view clips")
    conditions = "numeric columns of clips that condition the network; default: rate, size, crop, motion, aesthetics"
    create.add_argument("--conditions", metavar="A,B", help=conditions)
    create.add_argument("--table", default="latents", help="the table of the encode stage, default: latents")
    create.add_argument("-o", "--output", default="datasets", metavar="DIR", help="default: ./datasets")
    create.set_defaults(command=_dataset_create)

    export = commands.add_parser("export", help="latents as Parquet files")
    add_catalog(export)
    export.add_argument("--select", metavar="SQL", help="gives clip_id; default: every encoded clip")
    export.add_argument("--table", help="the table of the encode stage, where there are several")
    export.add_argument("-o", "--output", required=True, metavar="DIR")
    export.set_defaults(command=_export)


def _dataset_create(args: argparse.Namespace) -> int:
    from curate.datasets.create import run_dataset_create

    conditions = [name.strip() for name in args.conditions.split(",")] if args.conditions is not None else None
    return run_dataset_create(
        args.name, args.catalog, args.select, args.weight, args.output, conditions=conditions, table=args.table
    )


def _export(args: argparse.Namespace) -> int:
    from curate.shards.export import run_export

    return run_export(args.catalog, args.output, args.select, args.table)
