"""Commands that take things out of a catalog for good, and tell what saw them: purge."""

from __future__ import annotations

import argparse

from curate.cli.arguments import Commands, add_catalog


def add(commands: Commands) -> None:
    purge = commands.add_parser("purge", help="take sources or clips out for good, and all that was made of them")
    add_catalog(purge)
    purge.add_argument("--where", metavar="SQL", help="a condition on columns of sources, else of clips")
    purge.add_argument("--of", choices=("sources", "clips"), help="which of them --where is a condition on")
    purge.add_argument("--from-file", metavar="FILE", help="a URI, id or content hash a line, instead of --where")
    purge.add_argument("--dry-run", action="store_true", help="show what would go, and near duplicates of it")
    purge.add_argument("--yes", action="store_true", help="don't ask")
    purge.add_argument(
        "--cache", action="append", default=[], metavar="DIR", help="also a loader's cache of shards here"
    )
    purge.set_defaults(command=_purge)


def _purge(args: argparse.Namespace) -> int:
    from curate.removal.purge import purge

    return purge(args.catalog, args.where, args.of, args.from_file, args.dry_run, args.yes, args.cache)
