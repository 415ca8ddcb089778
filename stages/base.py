"""The four kinds of stage: on sources, on clips, on shards of clips, and on the whole catalog.

Every stage has one lifecycle. In the driver: `check` when the recipe is read, `prepare` before a run. In each
worker: `setup` once (models, child processes), then calls, then `close`. A stage must be picklable before `setup`.
docs/stages.md shows each kind with an example.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, final, get_args, get_origin

from stages.frames import FrameRequest
from stages.settings import ModelSettings, Settings, TableSettings
from stages.unit import Clip, Row, Unit

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


class SettingsError(Exception):
    """Settings of a stage that can't work here: one line with the fix. Raised in a worker, it ends the run."""


class MissingColumn(SettingsError):
    """Settings name a column that clips don't have; the command line adds which one is meant, or what makes it."""

    def __init__(self, message: str, column: str):
        super().__init__(message)
        self.column = column


class ClipError(Exception):
    """Why one clip could not be scored: the reason in its row."""


class UnfitError(ClipError):
    """Why a stage does not take a clip as it is, and what would make it fit: no failure, and nothing to try again."""


@dataclass(frozen=True)
class Needs:
    """What one worker of a stage takes, in logical CPUs and GPUs, and how many workers it may have at most."""

    cpus: float = 1.0
    gpus: float = 0.0
    workers: int | None = None  # None: as many as fit


ColumnType = Literal["double", "int32", "int64", "bool", "string", "binary"]  # names of Arrow types


@dataclass(frozen=True)
class Column:
    """A column that a stage or measure fills: its type, what it means in one line, and its unit."""

    type: ColumnType
    meaning: str = ""  # of our own stages never empty: `clipmill columns` and the tables of the docs show it
    unit: str = ""
    also: tuple[str, ...] = ()  # words that users take for it: an error that meets one of them names the column

    def __post_init__(self) -> None:
        if self.type not in get_args(ColumnType):
            raise ValueError(f"a column has one of the types {', '.join(get_args(ColumnType))}, not {self.type!r}")


@dataclass(frozen=True)
class Context:
    """What a stage is told before a run: where the catalog lies, and which columns there are.

    `clips` maps the columns of the view `clips` to Arrow types, `manifest` names those of them that manifests brought.
    All are empty in a recipe that begins with sources.
    """

    catalog_uri: str
    sources: Collection[str] = ()
    clips: Mapping[str, pa.DataType] = field(default_factory=dict)
    manifest: Collection[str] = ()


S = TypeVar("S", bound=Settings)
T = TypeVar("T", bound=TableSettings)
M = TypeVar("M", bound=ModelSettings)


class Stage(Generic[S]):
    """A step of a recipe. A subclass sets `name`, and gives its settings in brackets: `ClipStage[BlurSettings]`."""

    name: ClassVar[str]
    settings: S
    settings_type: ClassVar[type[Settings]] = Settings  # what the brackets name
    needs: Needs = Needs()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for base in vars(cls).get("__orig_bases__", ()):
            if issubclass(get_origin(base) or object, Stage) and isinstance(get_args(base)[0], type):
                cls.settings_type = get_args(base)[0]

    def check(self) -> None:
        """Raises SettingsError for settings that can't work on this machine; loads no model."""

    def prepare(self, context: Context) -> None:
        """Called in the driver before a run. Raises SettingsError, for a column that is missing for instance."""

    def loads(self) -> tuple[str, ...]:
        """The models that `setup` loads, such as 'CLIP model ViT-L-14/laion2b_s32b_b82k': a run says so meanwhile."""
        return ()

    def setup(self) -> None:
        """Loads models and starts child processes; called once in each worker, before the first unit."""

    def close(self) -> None:
        """Ends what `setup` started."""

    def columns(self) -> dict[str, dict[str, str]]:
        """The columns this stage fills: {table: {column: Arrow type name}}."""
        return {}

    def versions(self) -> dict[str, str]:
        """Versions of the code or models whose change makes old rows incomparable."""
        return {}


class UnitStage(Stage[S], ABC):
    """A stage that takes units one after the other: the base of all kinds but GlobalStage."""

    @abstractmethod
    def __call__(self, unit: Unit) -> Iterator[Unit]:
        """Yields the unit, or several parts of it. An exception fails this unit and nothing else."""

    def stream(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Every unit through this stage. A stage that works on several units at a time overrides this.

        The order of units may change, but not that of the parts of one unit.
        """
        for unit in units:
            if unit.failure is not None:
                yield unit
                continue
            try:
                yield from self(unit)
            except SettingsError:
                raise  # every unit would meet it: ends the run
            except Exception as error:
                yield unit.failed(f"{self.name}: {one_line(error)}")


class SourceStage(UnitStage[S]):
    """Takes sources and finds their clips. It is the first stage of its recipe."""

    gives_frames: ClassVar[bool] = False  # its clips carry the frames that later stages want; if not, they are fetched
    scanned: Callable[[float], None] | None = None  # told of the share of the source in hand that is scanned, 0 to 1

    def __init__(self, settings: S):
        self.settings = settings

    def signals(self) -> dict[str, Column]:
        """Columns that it adds to `clips`, by name."""
        return {}

    def columns(self) -> dict[str, dict[str, str]]:
        return {"clips": {name: column.type for name, column in self.signals().items()}}

    def gates(self) -> dict[str, str]:
        """SQL conditions that the stage brings along, by name."""
        return {}

    def undone_sql(self) -> str | None:
        """A SQL condition on `sources`: those of which other gates of this stage left something undone that these want
        done. None: there are none.
        """
        return None


class TableStage(Stage[T], ABC):
    """A stage that fills one table keyed by clip_id, whose rows say which clips are done.

    `table` is the stage's `as:` setting. Under its default name a signal is a column by its plain name; under another
    name the table's name goes before it, so that a second model's scores stand beside the first's.
    """

    default_table: ClassVar[str]
    settings_type: ClassVar[type[Settings]] = TableSettings
    own_signals: ClassVar[Mapping[str, Column]] = {}  # what `signals` gives, where no setting decides it

    def __init__(self, settings: T):
        self.settings = settings
        self.table = settings.table or self.default_table

    @classmethod
    def signals_of(cls, settings: Mapping[str, Any]) -> Mapping[str, Column]:
        """The signals under settings as a run notes them, in JSON; {} for those that the docs show."""
        return cls.own_signals

    def signals(self) -> dict[str, Column]:
        """Columns by plain name, `model` and `revision` among them where there is a model."""
        if not self.own_signals:
            raise NotImplementedError(f"{type(self).__name__} names no signals: set own_signals, or override signals")
        return dict(self.own_signals)

    @classmethod
    def column_of(cls, table: str, signal: str) -> str:
        """The column of a signal in a table: `model`, `revision` and `frames` always carry the table's name."""
        if table == cls.default_table and signal not in ("model", "revision", "frames"):
            return signal
        return f"{table}_{signal}" if signal != cls.default_table else table

    def column(self, signal: str) -> str:
        return self.column_of(self.table, signal)

    def columns(self) -> dict[str, dict[str, str]]:
        return {self.table: {self.column(name): column.type for name, column in self.signals().items()}}


class ClipStage(TableStage[M], UnitStage[M]):
    """Scores clips in batches: frames (or columns alone) in, one row a clip out.

    Inside a recipe with a decode pass it takes the frames that the pass hands on; in a recipe of its own it takes
    those that stages.decode.seek fetches. Subclasses give `signals` and `score`.
    """

    settings_type: ClassVar[type[Settings]] = ModelSettings
    keeps_answers: bool = False  # wants to be told of committed clips, see `left_over`

    def __init__(self, settings: M):
        super().__init__(settings)
        self.batch_clips = settings.batch_clips  # that `score` is given at a time, across units

    def wants(self) -> FrameRequest | None:
        """The frames of each clip that `score` needs; None for none."""
        return None

    @abstractmethod
    def score(self, clips: Sequence[Clip]) -> list[Row | ClipError]:
        """For each clip its signals by plain name, or why there are none.

        What a clip gets must not depend on which clips come together in a batch.
        """

    def source_columns(self) -> tuple[str, ...]:
        """Columns of manifests that its rows are made of: a clip is taken again once a cell of its own has changed."""
        return ()

    def clip_file(self) -> str | None:
        """A manifest with cells of `source_columns` for single clips, which go before those of their sources."""
        return None

    def left_over(self) -> set[str]:
        """Ids of clips for which the stage keeps something beside the catalog until their rows are committed."""
        return set()

    def committed(self, clip_ids: Collection[str]) -> None:
        """Told in the driver that the rows of these clips are committed as done."""

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        return self.stream([unit])

    def stream(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Units in their order, held back until a batch of clips is full or there are no more units."""
        waiting: list[Unit] = []
        clips = 0
        for unit in units:
            waiting.append(unit)
            clips += sum(1 for _ in unit.lacking(self.table))
            if clips >= self.batch_clips:
                yield from self._score(waiting)
                waiting, clips = [], 0
        yield from self._score(waiting)

    def ready_clips(self, unit: Unit) -> list[Clip]:
        """The clips to score of a unit; those without the frames they need are failed at once."""
        request, found = self.wants(), []
        for clip in unit.lacking(self.table):
            clip.frames = clip.pixels.get(request, []) if request is not None else []
            if request is not None and not clip.frames:
                self.add(clip, ClipError(clip.lost or "no frame of it could be had"))
            else:
                found.append(clip)
        return found

    def add(self, clip: Clip, answer: Row | ClipError) -> None:
        """Keeps a clip's row of this stage's table."""
        row: Row = {"clip_id": clip.row["clip_id"], "source_id": clip.row["source_id"]}
        if isinstance(answer, ClipError):
            status = "unfit" if isinstance(answer, UnfitError) else "failed"
            row |= {"status": status, "reason": one_line(answer)[:500]}
        else:
            row |= {"status": "done", "reason": None} | {self.column(name): value for name, value in answer.items()}
        clip.results[self.table] = row

    def _score(self, units: list[Unit]) -> list[Unit]:
        began = time.process_time()
        clips = [clip for unit in units for clip in self.ready_clips(unit)]
        for start in range(0, len(clips), self.batch_clips):
            batch = clips[start : start + self.batch_clips]
            for clip, answer in zip(batch, self._answers(batch), strict=True):
                self.add(clip, answer)
        seconds = time.process_time() - began
        for unit in units:
            unit.spent(self.name, seconds / len(units))
        return units

    def _answers(self, clips: list[Clip]) -> list[Row | ClipError]:
        """A batch that raises is taken apart, so that one bad clip costs itself alone."""
        try:
            answers = self.score(clips)
            if len(answers) != len(clips):
                raise TypeError(f"{self.name}: score gave {len(answers)} answers for {len(clips)} clips")
            return answers
        except SettingsError:
            raise
        except Exception as error:
            if len(clips) == 1:
                return [error if isinstance(error, ClipError) else ClipError(one_line(error))]
            return [self._answers([clip])[0] for clip in clips]


class ShardStage(ClipStage[M]):
    """Writes clips into shards, one shard a unit, below <catalog>/shards/<table>; its rows name them.

    It makes units of its own (`gather`), so it stands alone in its recipe, gates aside. `score` is given all clips of
    a unit. They are of many sources, so no frames come with them: stages.windows decodes what a shard needs.
    """

    @final
    def wants(self) -> None:
        return None

    @abstractmethod
    def gather(self, clips: Iterable[Clip]) -> Iterator[list[Clip]]:
        """Clips in order of their source, put together as shards."""

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        clips = self.ready_clips(unit)
        answers = self.score(clips) if clips else []
        if len(answers) != len(clips):
            raise TypeError(f"score gave {len(answers)} answers for {len(clips)} clips")
        for clip, answer in zip(clips, answers, strict=True):
            self.add(clip, answer)
        yield unit

    def stream(self, units: Iterable[Unit]) -> Iterator[Unit]:
        return UnitStage.stream(self, units)  # one at a time


class GlobalStage(TableStage[T]):
    """Judges all clips together, by SQL over committed rows; its table is replaced as a whole in one commit.

    What it says of a clip follows from the whole set alone, so retries, order and reruns change nothing.
    """

    @abstractmethod
    def compute(self, connection: duckdb.DuckDBPyConnection, select: str, previous: pa.Table | None) -> pa.Table:
        """The table's whole content: one row for each clip_id that the SQL `select` gives.

        `connection` has the views of the catalog; `previous` is what the table holds, made under the same settings
        (None: nothing).
        """


def requests_of(stages: Iterable[ClipStage]) -> tuple[FrameRequest, ...]:
    """The distinct frame requests of stages, in their order."""
    return tuple(dict.fromkeys(want for stage in stages if (want := stage.wants()) is not None))


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
