"""Results as Markdown: medians with ranges, ratios to the reference, the machine and the versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks import targets
from benchmarks.results import Cell, Results
from benchmarks.rows import BESIDE_ELECTRIC, ROWS, SHARES, Better, Hold, Row, Share

NOTHING = "–"
OURS = (targets.SQLITE, targets.POSTGRESQL)
REFERENCES = (targets.MEMORY, targets.FILE)
# The ceiling is that of an ASGI application; it is no limit to these, and is 100 % of itself.
NOT_ASGI = (*REFERENCES, targets.CEILING, targets.ELECTRIC)

HEAD = """\
# Benchmarks

Written by `make bench`. Each figure is the median of all rounds, with the range in brackets. Everything ran
on one machine, load generator included, in alternating rounds: in each round every server is started afresh,
goes through all rows and is stopped. Read the ratios: the figures themselves belong to the machine.
"""

METHOD = """\
## What is measured

- This server is the example project under uvicorn, one worker, uvloop and httptools, without an access log.
  The ceiling is a bare ASGI application on the same command line, which reads a request and sends a constant
  answer. The reference server is the protocol's own, `@durable-streams/server` on Node, in memory or
  file-backed.
- Appends, creates and GETs: wrk, closed loop, keep-alive, one thread. Before each run there is one second of
  warm-up. Any connection error, timeout or status of 400 and above makes a measurement an error. The exact
  status and length of a GET's answer are checked before and after. The appends of one stream are read back
  and counted afterwards, so that no answer stands for an append that is not there.
- Producers: wrk with a thread for each connection. Each is one `Producer-Id` with a `Producer-Seq` of its own
  that moves on when its append is answered with 200. Any other status is an error.
- 1 KB is 1,000 bytes, 1 MB is 1,000,000 bytes.
- Replay: the stream was written in appends of 1 MB. Four connections read from the start and follow
  `Stream-Next-Offset` until `Stream-Up-To-Date`, again and again; the figure is the sum of all four.
- Delivery: the time from just before a POST of 100 B is sent to the receipt, by a reader, of the data event
  or the long-poll response that carries it. Each of 30 appends, 200 ms apart (one reader: 60 appends, 50 ms
  apart), gives a sample for each reader, the last one included. Writer and readers are one process with raw
  sockets and one clock, which serves its readers one after the other; the figure includes that. A long-poll
  reader asks again at once.
- Consumers: one worker in a process of its own beside the server, and a stream of JSON messages of 100 B. Rate: the
  stream is full before the worker starts. Each batch changes one row of a table in its transaction. The time counts
  from the end of the first batch. Commit to handler: another process appends one message every 0.1 to 0.2 s in Python.
  The figure is the time from the return of that call, which is after the commit, to the call of the handler. Without
  Redis the worker polls every 0.25 s. The reference server has no consumers.
- Memory: growth of the resident memory of a fresh server process (and its children) between no readers and
  1,000 idle SSE readers, after a warm-up, divided by 1,000. PostgreSQL's own processes are not counted.
- Share of the ceiling: of the same round. It may be more than all of it, as this server answers on uvicorn's
  connections themselves, without what ASGI costs.
"""

DURABILITY = """\
## Durability

An answered append is on the disk with this server: SQLite runs with `journal_mode=WAL` and
`synchronous=FULL`, PostgreSQL with `fsync`, `synchronous_commit` and `full_page_writes` on. The reference
server in memory loses everything with its process; file-backed, it syncs the stream's file before it answers.
The durable columns are the ones to compare with each other.
"""


def render(results: Results) -> str:
    rows = [row for row in ROWS if any(sample.row == row.key for sample in results.samples)]
    sections = [
        HEAD,
        _figures(results, rows),
        _ratios(results, rows),
        _beside_electric(results, rows),
        _problems(results, rows),
        METHOD,
        DURABILITY,
        _facts("## Machine", results.machine),
        _facts("## Versions", results.versions),
        _facts("## Options", results.options),
    ]
    return "\n".join(section for section in sections if section)


def _figures(results: Results, rows: Sequence[Row]) -> str:
    header = ["", "unit", *results.titles.values()]
    body = []
    for row in rows:
        arrow = "↑" if row.better is Better.HIGHER else "↓"
        cells = [text(results.cell(target, row.key), row.unit) for target in results.titles]
        body.append([f"{row.title} {arrow}", row.unit, *cells])
    for share in _shares(results, rows):
        cells = [
            NOTHING if target in NOT_ASGI else text(results.share(target, share, targets.CEILING), "%")
            for target in results.titles
        ]
        body.append([f"{share.title} ↑", "%", *cells])
    return "\n".join(["## Figures", "", "↑ higher is better, ↓ lower is better.", "", *table(header, body)]) + "\n"


def _ratios(results: Results, rows: Sequence[Row]) -> str:
    pairs = [(own, other) for own in OURS for other in REFERENCES if {own, other} <= results.titles.keys()]
    if not pairs:
        return ""
    header = [
        "",
        *(f"{results.titles[own]} / {results.titles[other]}" for own, other in pairs),
        "to hold",
        "",
    ]
    body = []
    for row in rows:
        if row.hold is None:
            continue
        cells = [_ratio(results, row, own, other) for own, other in pairs]
        body.append([row.title, *cells, *_hold(results, row, row.hold)])
    for share in _shares(results, rows):
        median = results.share(targets.SQLITE, share, targets.CEILING).median
        verdict = NOTHING if median is None else _verdict(median >= share.hold)
        body.append([share.title, *(NOTHING for _ in pairs), f"≥ {share.hold:g} %", verdict])
    lines = ["## Ratios", "", "Ours / reference, of the medians. What is to hold is asked of SQLite.", ""]
    return "\n".join([*lines, *table(header, body)]) + "\n"


def _beside_electric(results: Results, rows: Sequence[Row]) -> str:
    own = [key for key in OURS if key in results.titles]
    if not own or targets.ELECTRIC not in results.titles:
        return ""
    shown = [*own, targets.ELECTRIC]
    titles = [results.titles[key] for key in shown]
    header = ["", "unit", *titles, *(f"{results.titles[key]} / Electric" for key in own), "to hold", ""]
    body = []
    for row in rows:
        if row.hold is None:
            continue
        hold = BESIDE_ELECTRIC.get(row.key)
        cells = [text(results.cell(key, row.key), row.unit) for key in shown]
        cells += [_ratio(results, row, key, targets.ELECTRIC) for key in own]
        arrow = "↑" if row.better is Better.HIGHER else "↓"
        limit, verdict = _hold(results, row, hold) if hold else (NOTHING, NOTHING)
        body.append([f"{row.title} {arrow}", row.unit, *cells, limit.partition(" × ")[0], verdict])
    return "\n".join(["## Beside Electric's server", "", *table(header, body)]) + "\n"


def _shares(results: Results, rows: Sequence[Row]) -> list[Share]:
    keys = {row.key for row in rows}
    return [share for share in SHARES if targets.CEILING in results.titles and share.of in keys]


def _quotient(results: Results, row: Row, own: str, other: str) -> float | None:
    above, below = results.cell(own, row.key).median, results.cell(other, row.key).median
    return above / below if above is not None and below else None


def _ratio(results: Results, row: Row, own: str, other: str) -> str:
    quotient = _quotient(results, row, own, other)
    return NOTHING if quotient is None else f"{quotient:.2f}"


def _hold(results: Results, row: Row, hold: Hold) -> list[str]:
    higher = row.better is Better.HIGHER
    bound = hold.factor if higher else 1 / hold.factor
    title = f"{'≥' if higher else '≤'} {bound:.2g} × {results.titles.get(hold.against, hold.against)}"
    quotient = _quotient(results, row, targets.SQLITE, hold.against)
    if quotient is None:
        return [title, NOTHING]
    return [title, _verdict(quotient >= bound if higher else quotient <= bound)]


def _verdict(held: bool) -> str:
    return "holds" if held else "**missed**"


def _problems(results: Results, rows: Sequence[Row]) -> str:
    lines = [f"- {warning}" for warning in results.warnings]
    for row in rows:
        for target, title in results.titles.items():
            lines += [f"- {row.title}, {title}, {error}" for error in results.cell(target, row.key).errors]
    if not lines:
        return ""
    return "\n".join(["## Errors", "", "A measurement with an error is not in the figures.", "", *lines]) + "\n"


def text(cell: Cell, unit: str) -> str:
    """Return the median of a cell, and the range of its values."""
    if cell.median is None:
        return "error" if cell.errors else NOTHING
    shown = _number(cell.median, unit)
    if len(cell.values) > 1:
        shown += f" ({_number(min(cell.values), unit)}–{_number(max(cell.values), unit)})"
    return f"{shown} (and {len(cell.errors)} with errors)" if cell.errors else shown


def _number(value: float, unit: str) -> str:
    decimals = {"ms": 2 if value < 10 else 1, "KB": 1}.get(unit, 0)
    return f"{value:,.{decimals}f}"


def table(header: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = [list(header), ["---", *("---:" for _ in header[1:])], *(list(row) for row in body)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _facts(title: str, facts: dict[str, str]) -> str:
    if not facts:
        return ""
    return "\n".join([title, "", *(f"- {name}: {value}" for name, value in facts.items())]) + "\n"
