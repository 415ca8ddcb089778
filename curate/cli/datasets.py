"""Commands that make datasets and exports of clips: dataset create, export."""

from __future__ import annotations

import argparse

from curate.cli.arguments import Commands, add_catalog, positive
from curate.errors import UserError

SHARD_MB = 512  # default size of a tar of clips


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

    export = commands.add_parser("export", help="latents as Parquet files, or clips as MP4 files")
    add_catalog(export)
    form = export.add_mutually_exclusive_group()
    form.add_argument("--clips", action="store_true", help="clips as DIR/KEY.mp4, KEY.txt, KEY.json and metadata.jsonl")
    form.add_argument("--webdataset", action="store_true", help="clips as WebDataset tars of such files")
    export.add_argument("--select", metavar="SQL", help="gives clip_id; default: every encoded, or every kept clip")
    export.add_argument("--table", help="latents: the table of the encode stage, where there are several")
    export.add_argument("-o", "--output", required=True, metavar="DIR")
    clips = export.add_argument_group("how clips are written")
    clips.add_argument("--caption", metavar="COLUMN", help="the captions; default: the column caption")
    clips.add_argument("--size", metavar="N|WxH", help="shorter side at most N, or exactly WxH; default: as the source")
    clips.add_argument("--fps", type=float, metavar="F", help="a constant rate; default: the source's frames and times")
    clips.add_argument("--letterbox", action="store_true", help="cut off measured black bars")
    clips.add_argument("--encode", action="store_true", help="encode every clip: no stream copies")
    clips.add_argument("--crf", type=int, metavar="N", help="x264's quality of what is encoded, 0 to 51; default 17")
    clips.add_argument("--shard-mb", type=positive, metavar="N", help="size of a tar; default 512")
    export.set_defaults(command=_export)


def _dataset_create(args: argparse.Namespace) -> int:
    from curate.datasets.create import run_dataset_create

    conditions = [name.strip() for name in args.conditions.split(",")] if args.conditions is not None else None
    return run_dataset_create(
        args.name, args.catalog, args.select, args.weight, args.output, conditions=conditions, table=args.table
    )


def _export(args: argparse.Namespace) -> int:
    settings = {"size": args.size, "fps": args.fps, "crf": args.crf, "letterbox": args.letterbox or None}
    settings |= {"copy_streams": False if args.encode else None}
    given = {name: value for name, value in settings.items() if value is not None}
    if not (args.clips or args.webdataset):
        if given or args.caption or args.shard_mb:
            raise UserError("settings of clips go with --clips or --webdataset; without them export writes latents")
        from curate.exports.latents import run_export

        return run_export(args.catalog, args.output, args.select, args.table)
    if args.table:
        raise UserError("--table names a table of latents; it does not go with --clips or --webdataset")
    if args.shard_mb and not args.webdataset:
        raise UserError("--shard-mb is the size of a tar: it goes with --webdataset")
    from curate.exports.clips import run_export_clips

    shard_mb = (args.shard_mb or SHARD_MB) if args.webdataset else None
    return run_export_clips(args.catalog, args.output, args.select, args.caption, shard_mb, given)
