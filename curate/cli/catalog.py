"""Commands that ask a catalog, and tell it of what moved or is gone: sql, search, sheet, browse, gates, status, audit,
verify, trace, relocate, forget."""

from __future__ import annotations

import argparse
import functools

from curate.cli.arguments import Commands, add_catalog, filled, port, positive

VIEWS = "sources, clips, runs, gates, places, removals, thumbnails, and a table for each stage on clips"


def add(commands: Commands) -> None:
    sql = commands.add_parser("sql", help=f"query the catalog in SQL (views: {VIEWS})")
    sql.add_argument("query", metavar="SELECT")
    add_catalog(sql)
    sql.add_argument("--format", choices=("table", "csv", "json"), help="default: by the ending of -o, else table")
    sql.add_argument("-o", "--output", metavar="FILE")
    layout = sql.add_mutually_exclusive_group()
    layout.add_argument("--wide", dest="layout", action="store_const", const="wide", help="all columns side by side")
    layout.add_argument("--vertical", dest="layout", action="store_const", const="vertical", help="one column a line")
    other = "a version, catalog or dataset, whose views are other.clips, other.sources, ..."
    sql.add_argument("--against", type=filled, metavar="VERSION|DIR", help=other)
    sql.set_defaults(command=_sql)

    columns = commands.add_parser("columns", help="every table and column: type, unit, stage that makes it, meaning")
    columns.add_argument("name", nargs="?", metavar="NAME", help="a table, or a column of any table; default: all")
    columns.add_argument("--catalog", type=filled, metavar="URI", help="default: the columns that clipmill documents")
    columns.add_argument("--format", choices=("table", "csv", "json"), default="table")
    columns.set_defaults(command=_columns)

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

    sheet = commands.add_parser("sheet", help="thumbnails of clips with the values that judged them, no model needed")
    add_catalog(sheet)
    sheet.add_argument("--where", metavar="SQL", help="a condition on the view clips, e.g. \"verdict = 'dropped'\"")
    sheet.add_argument("--by", metavar="COLUMN", help="order by this column, the whole range of it")
    sheet.add_argument("--descending", action="store_true", help="greatest values first")
    sheet.add_argument("-n", type=positive, metavar="N", help="how many clips, default 100")
    sheet.add_argument("-o", "--output", required=True, metavar="FILE", help="sheet.png (.jpg, .webp) or sheet.html")
    sheet.set_defaults(command=_sheet)

    browse = commands.add_parser("browse", help="a local page to look at clips, read-only; Ctrl-C ends it")
    add_catalog(browse)
    browse.add_argument("--port", type=port, metavar="N", help="default: one that is free")
    browse.add_argument("--memory-gb", type=positive, metavar="N", help="for the clips, default: half of what there is")
    browse.set_defaults(command=_browse)

    gates = commands.add_parser("gates", help="the gates in force and what each costs; try another one, drop one")
    gates.add_argument("action", nargs="?", choices=("try", "drop"), help="without it: list the gates in force")
    gates.add_argument("what", nargs="?", metavar="SQL|RECIPE[.NAME]", help="a condition to try, or what to drop")
    add_catalog(gates)
    gates.add_argument("--unknown", choices=("keep", "drop"), default="keep", help="try: clips for which it is NULL")
    gates.add_argument("--instead", metavar="RECIPE.NAME", help="try: in place of this gate, not beside it")
    gates.set_defaults(command=_gates)

    status = commands.add_parser("status", help="what is done, failed and pending, and why")
    add_catalog(status)
    status.add_argument("--check", action="store_true", help="look at each source: is it gone, or changed?")
    status.set_defaults(command=_status)

    audit = commands.add_parser(
        "audit", help="what is in the catalog, what was lost and why: a page, figures and documents"
    )
    add_catalog(audit)
    audit.add_argument("-o", "--output", required=True, type=filled, metavar="DIR")
    chosen = audit.add_mutually_exclusive_group()
    chosen.add_argument("--select", metavar="SQL", help="gives clip_id of the clips to audit; default: every clip")
    chosen.add_argument("--dataset", metavar="DIR", help="audit the samples of this dataset, with their weights")
    audit.add_argument("--held-out", type=float, metavar="SHARE", help="what leaks to sources the trainer holds out")
    audit.add_argument("--other", metavar="DIR", help="what leaks to a second dataset")
    audit.add_argument("--settings", metavar="FILE", help="YAML: what only you know, for the documents")
    against = (
        "what came, went and moved since a version (a run's number or id, or a time), or from a catalog or dataset"
    )
    audit.add_argument("--against", type=filled, metavar="VERSION|DIR", help=against)
    audit.set_defaults(command=_audit)

    verify = commands.add_parser("verify", help="reconcile ledger, tables and shards; exit 1 on any mismatch")
    add_catalog(verify)
    verify.add_argument("--sources", action="store_true", help="also find sources that are gone or changed")
    verify.add_argument("--rate", type=positive, metavar="N", help="look at so many sources a second at most")
    verify.add_argument("--hashes", action="store_true", help="read every source, not only those of another time")
    verify.set_defaults(command=_verify)

    trace = commands.add_parser("trace", help="which datasets, training runs and checkpoints saw clips, and how often")
    add_catalog(trace)
    trace.add_argument("--where", required=True, metavar="SQL", help="a condition on the view clips")
    runs = "runs, or folders of runs, that are not where they were made"
    trace.add_argument("--runs", nargs="+", action="extend", default=[], metavar="DIR", help=runs)
    trace.add_argument("--datasets", nargs="+", action="extend", default=[], metavar="DIR", help="the same of datasets")
    trace.add_argument("--by-clip", action="store_true", help="a row for each clip, not for all of them together")
    trace.add_argument("--format", choices=("table", "csv", "json"), default="table")
    trace.set_defaults(command=_trace)

    relocate = commands.add_parser("relocate", help="a folder or bucket of sources that moved; ids stay")
    relocate.add_argument("old", metavar="OLD", help="where the sources were: folder, file, or URI")
    relocate.add_argument("new", metavar="NEW", help="where they are now")
    add_catalog(relocate)
    relocate.add_argument("--dry-run", action="store_true", help="count, and change nothing")
    relocate.add_argument("--unseen", action="store_true", help="also where none of them is found under NEW")
    relocate.set_defaults(command=_relocate)

    forget = commands.add_parser("forget", help="failed and vanished sources leave the catalog; they may come back")
    add_catalog(forget)
    conditions = "a condition on the view sources, e.g. \"status = 'failed'\", or vanished: those whose file is gone"
    forget.add_argument("--where", required=True, type=filled, metavar="SQL", help=conditions)
    forget.add_argument("--dry-run", action="store_true", help="show what would go, and change nothing")
    forget.add_argument("--yes", action="store_true", help="do not ask")
    forget.set_defaults(command=_forget)


def _sql(args: argparse.Namespace) -> int:
    from curate.query.sql import print_query

    beside = None
    if args.against is not None:
        from curate.audit.against import attach_other

        beside = functools.partial(attach_other, args.against)
    return print_query(args.catalog, args.query, args.format, args.output, args.layout, beside)


def _columns(args: argparse.Namespace) -> int:
    from curate.query.columns.listing import print_columns

    return print_columns(args.catalog, args.name, args.format)


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


def _sheet(args: argparse.Namespace) -> int:
    from curate.query.sheet import write_sheet

    return write_sheet(args.catalog, args.output, args.where, args.by, args.descending, args.n)


def _browse(args: argparse.Namespace) -> int:
    from curate.audit.browse.command import browse

    return browse(args.catalog, args.port, args.memory_gb)


def _gates(args: argparse.Namespace) -> int:
    from curate.errors import UserError
    from curate.query.gates import drop_gates, print_gates, try_gate

    if args.action is None:
        return print_gates(args.catalog)
    if args.what is None:
        wanted = 'a condition, such as "motion >= 0.5"' if args.action == "try" else "RECIPE or RECIPE.NAME"
        raise UserError(f"gates {args.action}: give {wanted}")
    if args.action == "drop":
        return drop_gates(args.catalog, args.what)
    return try_gate(args.catalog, args.what, args.unknown, args.instead)


def _status(args: argparse.Namespace) -> int:
    from curate.catalog.catalog import Catalog
    from curate.run.status import print_status

    return print_status(Catalog.open(args.catalog), args.check)


def _audit(args: argparse.Namespace) -> int:
    from curate.audit.command import run_audit

    return run_audit(
        args.catalog, args.output, args.select, args.dataset, args.held_out, args.other, args.settings, args.against
    )


def _verify(args: argparse.Namespace) -> int:
    from curate.catalog.catalog import Catalog
    from curate.errors import UserError
    from curate.run.presence import what_to_do
    from curate.run.verify import verify
    from curate.run.verify_sources import source_problems

    if not args.sources and (args.rate or args.hashes):
        raise UserError("--rate and --hashes go with --sources")
    catalog, notes = Catalog.open(args.catalog), list[str]()
    problems = verify(catalog, notes)
    mismatches = len(problems)
    for problem in problems:
        print(problem)
    if args.sources:
        gone = False
        for found in source_problems(catalog, args.rate, args.hashes):
            print(found)
            mismatches, gone = mismatches + 1, gone or found.kind == "gone"
        notes += [f"sources that are gone: {what_to_do(catalog.uri)}"] if gone else []
    for note in notes:
        print(f"note: {note}")
    what = "ledger, tables, shards and sources agree" if args.sources else "ledger, tables and shards agree"
    print(f"{mismatches} mismatches" if mismatches else f"verified: {what}")
    return 1 if mismatches else 0


def _trace(args: argparse.Namespace) -> int:
    from curate.query.trace import print_trace

    return print_trace(args.catalog, args.where, args.runs, args.datasets, args.format, args.by_clip)


def _relocate(args: argparse.Namespace) -> int:
    from curate.catalog.catalog import Catalog
    from curate.run.relocate import relocate

    return relocate(Catalog.open(args.catalog), args.old, args.new, args.dry_run, args.unseen)


def _forget(args: argparse.Namespace) -> int:
    from curate.run.forget import forget

    return forget(args.catalog, args.where, args.dry_run, args.yes)
