"""Gather: rows come from many tasks in any order, and leave as whole blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convnext_cli.base.text import json_value
from convnext_cli.predict.writers import Columns, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class _Waiting:
    """What of a block has come. units: that have to come to their end. rows: that ended units have. passed_over: in
    these, by type."""

    units: int
    tables: list[pa.Table] = field(default_factory=list)
    come: int = 0
    rows: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)


class Gather:
    """units: of each block by its name. A block that is given away is not waited for any more. columns: of rows."""

    def __init__(self, units: dict[str, int], columns: Columns) -> None:
        self._names = arrow_schema(columns).names
        self._waiting = {name: _Waiting(number) for name, number in units.items()}

    @property
    def missing(self) -> set[str]:
        """Blocks that are not whole yet."""
        return set(self._waiting)

    def add(self, table: pa.Table) -> Iterator[tuple[str, pa.Table, Counter[str]]]:
        """Take rows as ``stages.Answer`` makes them; yields blocks that are whole now: the rows in order, and what of
        its shard was passed over."""
        import pyarrow.compute as pc

        for name in pc.unique(table["block"]).to_pylist():
            some = table.filter(pc.equal(table["block"], name))
            waiting = self._waiting[name]
            ends = some.filter(pc.is_valid(some["rows"]))
            waiting.units -= len(ends)
            waiting.rows += pc.sum(ends["rows"]).as_py() or 0
            for skipped in ends["passed_over"].to_pylist():
                waiting.passed_over.update(json_value(skipped))
            rows = some.filter(pc.is_valid(some["place"]))
            waiting.come += len(rows)
            waiting.tables.append(rows)
            if waiting.units == 0 and waiting.come == waiting.rows:
                del self._waiting[name]
                yield name, _in_order(waiting.tables).select(self._names), waiting.passed_over


def _in_order(tables: list[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables).sort_by([("unit", "ascending"), ("place", "ascending")])
