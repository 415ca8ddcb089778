"""Commands that read a catalog: sql, search, status, verify."""

from __future__ import annotations

import argparse

from curate.cli.arguments import Commands, add_catalog, positive

VIEWS = "sources, clips, runs, gates, thumbnails, and a table for each stage on clips"


def add(commands: Commands) -> None:
    sql = commands.add_parser("sql", help=f"query the catalog in SQL (views: {VIEWS})")
    sql.add_argument("query", metavar="SELECT")
    add_catalog(sql)
    sql.add_argument("--format", choices=("table", "csv", "json"), help="default: by the ending of -o, else table")
    sql.add_argument("-o", "--output", metavar="FILE")
    sql.set_defaults(command=_sql)

    search = commands.add_parser("search", help="clips by meaning: the nearest to a text, by their embeddings")
    search.add_argument("text", metavar="TEXT")
    add_catalog(search)
    search.add_argument("-k", type=positive, default=20, metavar="N", help="how many, default 20")
    search.add_argument("--where", metavar="SQL", help="a condition on the view clips, e.g. \"verdict = 'kept'\"")
    search.add_argument("--table", default="embeddings", help="the table of embeddings, default: embeddings")
    search.add_argument("--model", help="path of the model, if not where the run found it")
    search.add_argument("--pretrained", help="its tag or checkpoint")
    search.add_argument("--format", choices=("table", "csv", "json"), default="table")
    search.add_argument("-o", "--output", metavar="FILE", help="a contact sheet of the hits (.png, .jpg, .webp)")
    search.set_defaults(command=_search)

    status = commands.add_parser("status", help="what is done, failed and pending, and why")
    add_catalog(status)
    status.set_defaults(command=_status)

    verify = commands.add_parser("verify", help="reconcile ledger, tables and shards; exit 1 on any mismatch")
    add_catalog(verify)
    verify.set_defaults(command=_verify)


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
    return 1 if problems else 0
