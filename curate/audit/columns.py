"""Which of a catalog's columns are signals, captions, groups and facts of sources, and what an audit takes of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from curate.audit.thresholds import Threshold, thresholds
from curate.catalog.catalog import OWN_TABLES
from curate.catalog.gates import Gate, condition_sql, quote
from curate.catalog.schema import BASE, BOOKKEEPING, JUDGED
from curate.query.gates import gates_in_force
from curate.shards.inventory import SHARD_COLUMNS

Tables = Mapping[str, Mapping[str, str]]  # view -> column -> type

NUMBERS = ("DOUBLE", "FLOAT", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "DECIMAL")
STEPS = {"-10 %": 0.9, "+10 %": 1.1}  # by which the counterfactual funnel moves a threshold
OWN = ("clip_id", "source_id", "media", "seconds", "encoded", "kept", "failed", "dropped_by", "selected", "weight")
# Exact: sums of decimals do not depend on their order.
SECONDS = "coalesce(TRY_CAST(end_s - start_s AS DECIMAL(18, 6)), 0)"
# Numbers that do not say what a clip looks or sounds like: places, sizes, names of groups.
NO_SIGNALS = {"concept", "concept_size", "concept_weight", "duplicate_count", "dim", "window_start_s", "window_fps"}
NO_SIGNALS |= {"crop_x", "crop_y", "crop_w", "crop_h", "caption_seed", "source_s", "decode_psnr", "shard_bytes"}
CLIP_FACTS = ("clip_id", "source_id", "media", "start_s", "width", "height", "fps", "damaged_frames")
# What is taken over from `sources`, as far as it is there. Rights come from manifests: a catalog may lack any of them.
TECHNICAL = (
    "codec",
    "pixel_format",
    "bit_depth",
    "color_transfer",
    "field_order",
    "container",
    "has_audio",
    "audio_channels",
)
RIGHTS = ("source_kind", "dataset", "dataset_licence", "licence", "language", "domain", "consent")
OPT_OUTS = tuple(f"optout_{signal}" for signal in ("robots", "tdmrep", "aipref", "rsl", "c2pa"))
SOURCE_FACTS = (*TECHNICAL, *RIGHTS, *OPT_OUTS)
GROUPS = (
    "concept", "concept_name", "duplicate_cluster", "duplicate_kind", "duplicate_keep", "duplicate_of",
    "duplicate_component",
)  # fmt: skip
# What the measures of a caption's text are called behind its column's name; texts among them count as TRUE or FALSE.
MEASURES = ("words", "repetition", "language", "truncated", "clip_match")
FLAGS = ("refusal", "boilerplate")


@dataclass(frozen=True)
class Moved:
    """A threshold that is tried at another value."""

    threshold: Threshold
    step: str  # a key of STEPS
    value: float


@dataclass(frozen=True)
class JudgedGate:
    """A gate in force with the columns of `judged` that hold its answers: TRUE, FALSE, or NULL for unknown."""

    recipe: str
    gate: Gate
    column: str  # such as gate_1
    thresholds: Sequence[Threshold]

    @property
    def name(self) -> str:
        return f"{self.recipe}.{self.gate.name}"

    @property
    def passes(self) -> str:
        """SQL over `judged`: the gate lets the clip pass."""
        return self.passes_by(self.column)

    def passes_by(self, column: str) -> str:
        """The same by another column of answers, that of a moved threshold."""
        return f"coalesce({column}, {'false' if self.gate.unknown == 'drop' else 'true'})"

    def moved(self) -> dict[str, Moved]:
        """The gate with each threshold moved either way, by the column of `judged` that has its answers."""
        return {
            f"{self.column}_{number}{'a' if factor < 1 else 'b'}": Moved(threshold, step, threshold.times(factor))
            for number, threshold in enumerate(self.thresholds, 1)
            for step, factor in STEPS.items()
        }

    def columns_sql(self) -> dict[str, str]:
        """column of `judged` -> SQL over `clips`."""
        moved = {
            column: condition_sql(each.threshold.put(self.gate, each.value)) for column, each in self.moved().items()
        }
        return {self.column: condition_sql(self.gate)} | moved


@dataclass(frozen=True)
class Captions:
    """A column of captions, such as `caption`. `judged` has its measures, under the names that `clips` has them by."""

    column: str
    table: str  # where it stands
    model: str | None  # the column of `judged` with the name of the model that wrote it

    def measure(self, name: str) -> str:
        return f"{self.column}_{name}"

    @property
    def measures(self) -> list[str]:
        return [self.measure(name) for name in (*MEASURES, *FLAGS)]


def judged_gates(sql: duckdb.DuckDBPyConnection) -> list[JudgedGate]:
    """The gates in force, in the order in which they judge."""
    return [
        JudgedGate(standing.recipe, standing.gate, f"gate_{number}", thresholds(sql, standing.gate))
        for number, standing in enumerate(gates_in_force(sql), 1)
    ]


def view_columns(sql: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """The columns of the views of a catalog, with their types."""
    tables: dict[str, dict[str, str]] = {}
    rows = sql.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() "
        "WHERE schema_name = 'main' AND database_name = current_database() AND NOT internal "
        "ORDER BY table_name, column_index"
    ).fetchall()
    for table, column, kind in rows:
        tables.setdefault(table, {})[column] = kind
    return tables


def signal_columns(tables: Tables) -> list[str]:
    """The columns of `clips` that are numbers about what a clip shows, in its order."""
    taken = {*BASE["clips"].names, *BASE["sources"].names, *JUDGED, *BOOKKEEPING, *SHARD_COLUMNS, *NO_SIGNALS}
    taken |= {*tables["sources"], *(f"sources_{name}" for name in tables["sources"])}  # columns of manifests
    ends = tuple(f"_{name}" for name in NO_SIGNALS)  # of a stage to which the recipe gave another name
    return [
        name
        for name, kind in tables["clips"].items()
        if kind.startswith(NUMBERS) and not kind.endswith("]") and name not in taken and not name.endswith(ends)
    ]


def caption_columns(tables: Tables) -> list[Captions]:
    """The columns of captions that `clips` shows."""
    captions = []
    for table in stage_tables(tables):
        for name, kind in tables[table].items():
            measures = {f"{name}_words", f"{name}_repetition"}
            if kind == "VARCHAR" and measures <= set(tables[table]) and {name, *measures} <= set(tables["clips"]):
                models = (f"{table}_model", "model")  # `clips` puts the table's name before a name that is taken
                model = next((m for m in models if m in tables["clips"]), None)
                captions.append(Captions(name, table, model))
    return captions


def stage_tables(tables: Tables) -> list[str]:
    """The tables of stages, by name."""
    return sorted(set(tables) - {"clips", "sources", "thumbnails", *OWN_TABLES})


def clip_facts(
    tables: Tables, signals: Sequence[str], captions: Sequence[Captions], latents: Sequence[str]
) -> dict[str, str]:
    """column of `judged` -> SQL over `clips`, of all but the gates' answers. `latents` are tables with shards."""
    there = tables["clips"]
    facts = {name: name for name in CLIP_FACTS}
    facts["seconds"] = SECONDS
    shards = [name for table in latents for name in ("shard", f"{table}_shard") if name in tables[table]]
    facts["encoded"] = " OR ".join(f"{quote(name)} IS NOT NULL" for name in shards if name in there) or "false"
    facts |= {name: quote(name) for name in (*signals, *GROUPS) if name in there}
    for each in captions:
        facts |= {m: quote(m) for name in MEASURES if (m := each.measure(name)) in there}
        facts |= {m: f"{quote(m)} IS NOT NULL" for name in FLAGS if (m := each.measure(name)) in there}
        if each.model is not None:
            facts[each.model] = quote(each.model)
    return facts
