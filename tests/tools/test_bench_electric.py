"""Electric's server as a target, its limits in the report, and the load generator of its authors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import ds_bench, report, rows, targets
from benchmarks.client import Address, Client
from benchmarks.ds_bench import APPEND_BYTES, APPEND_STREAM, STYLES, Style
from benchmarks.outcome import MeasurementError
from benchmarks.results import Results, Sample

SERVER = """\
import http.server, json, pathlib, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(sys.argv[1:]).encode() if "argv" in self.path else b"." * %d
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Stream-Next-Offset", "1")
        self.send_header("Stream-Up-To-Date", "true")
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
pathlib.Path(sys.argv[sys.argv.index("--data-dir") + 1]).mkdir()
address = sys.argv[sys.argv.index("--host") + 1], int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(address, Handler).serve_forever()
"""
APPENDED = 3


def program(path: Path, text: str) -> str:
    """Write a program in Python, and return its path."""
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o700)
    return str(path)


@pytest.fixture
def electric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> targets.Target:
    """Electric's server as a target, with a small program in its place."""
    monkeypatch.setenv("ELECTRIC_SERVER", program(tmp_path / "server", SERVER % (APPENDED * APPEND_BYTES)))
    monkeypatch.delenv("ELECTRIC_FLAGS", raising=False)
    return targets.make(targets.ELECTRIC)


def flags_of(address: Address) -> list[str]:
    """The flags that the server was started with."""
    with Client(address) as client:
        flags: list[str] = json.loads(client.request("GET", "argv", expect=(200,)).body)
    return flags


@pytest.mark.parametrize("more", ["", "--tail-cache-bytes 65536"])
def test_the_server_runs_with_its_log_on_a_folder_of_its_own(
    more: str, electric: targets.Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELECTRIC_FLAGS", more)
    address = electric.start()
    try:
        flags = flags_of(address)
        folder = Path(flags[flags.index("--data-dir") + 1])
        assert folder.is_dir()
    finally:
        electric.stop()
    assert flags[:4] == ["--host", "127.0.0.1", "--durability", "wal"]
    assert flags[4:] == ["--port", str(address.port), "--data-dir", str(folder), *more.split()]
    assert not folder.parent.exists()
    assert electric.pid is None


@pytest.mark.parametrize("path", [None, "", "/nowhere/server"])
def test_without_a_program_the_target_says_what_to_do(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELECTRIC_SERVER", raising=False)
    if path is not None:
        monkeypatch.setenv("ELECTRIC_SERVER", path)
    with pytest.raises(targets.TargetError, match="ELECTRIC_SERVER names no program"):
        targets.make(targets.ELECTRIC).start()


def test_a_run_of_all_targets_does_not_need_the_server() -> None:
    assert targets.ELECTRIC not in targets.DEFAULT
    assert {targets.make(key).key for key in targets.ALL} == {*targets.DEFAULT, targets.ELECTRIC}


def results(**by_row: tuple[float, float]) -> Results:
    """Results with one sample of this server and one of Electric's for each row."""
    measured = Results(titles={targets.SQLITE: "ours, SQLite", targets.ELECTRIC: "Electric, WAL"})
    for key, pair in by_row.items():
        for target, value in zip(measured.titles, pair, strict=True):
            measured.samples.append(Sample(0, target, key.replace("_", "-"), value))
    return measured


def cells(text: str, title: str) -> list[str]:
    (line,) = [line for line in text.partition("## Beside Electric's server")[2].splitlines() if title in line]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.mark.parametrize(("ours", "verdict"), [(800, "holds"), (799, "**missed**")])
def test_the_report_compares_a_rate_with_its_limit(ours: float, verdict: str) -> None:
    line = cells(report.render(results(append=(ours, 1000))), "append 100 B, one stream")
    assert line[1:] == ["req/s", f"{ours:,.0f}", "1,000", "0.80", "≥ 0.8", verdict]


@pytest.mark.parametrize(("ours", "verdict"), [(20, "holds"), (21, "**missed**")])
def test_the_report_compares_a_latency_with_its_limit(ours: float, verdict: str) -> None:
    line = cells(report.render(results(sse_1000_p99=(ours, 20))), "1,000 readers, p99")
    assert line[1:] == ["ms", f"{ours:.1f}", "20.0", f"{ours / 20:.2f}", "≤ 1", verdict]


def test_a_row_without_a_limit_is_compared_all_the_same() -> None:
    line = cells(report.render(results(replay=(300, 200))), "replay of 100 MB")
    assert line[1:] == ["MB/s", "300", "200", "1.50", "–", "–"]


def test_a_report_without_the_server_does_not_name_it() -> None:
    measured = results(append=(1, 1))
    del measured.titles[targets.ELECTRIC]
    assert "Electric" not in report.render(measured)


def test_every_limit_is_that_of_a_row() -> None:
    assert rows.BESIDE_ELECTRIC.keys() <= {row.key for row in rows.ROWS if row.hold is not None}
    assert {hold.against for hold in rows.BESIDE_ELECTRIC.values()} == {targets.ELECTRIC}


def style(key: str) -> Style:
    (measured,) = [style for style in STYLES if style.key == key]
    return measured


def filled(style: Style, value: int) -> dict[str, object]:
    """A report of a style with one value for each number that is looked at."""
    paths = [figure.path for figure in style.figures]
    paths += [path for count in style.counts for path in (count.path, *count.factors)]
    whole: dict[str, object] = {}
    for path, number in [*((path, value) for path in paths), *((path, 0) for path in style.no_errors)]:
        *parents, last = path.split(".")
        level = whole
        for name in parents:
            level = level.setdefault(name, {})  # type: ignore[assignment]
        level[last] = number
    return whole


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.key)
def test_a_style_reads_its_figures(style: Style) -> None:
    measured = filled(style, 1)
    assert [figure.value(measured) for figure in style.figures] == [figure.scale for figure in style.figures]
    assert style.problems(measured) == []


def test_no_figure_has_the_key_of_another() -> None:
    keys = [figure.key for style in STYLES for figure in style.figures]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("key", "path", "problem"),
    [(style.key, path, f"{path} is 7") for style in STYLES for path in style.no_errors],
)
def test_an_error_that_ds_bench_counts_is_a_problem(key: str, path: str, problem: str) -> None:
    measured = filled(style(key), 1)
    *parents, last = path.split(".")
    level: dict[str, object] = measured
    for name in parents:
        level = level[name]  # type: ignore[assignment]
    level[last] = 7
    assert style(key).problems(measured) == [problem]


@pytest.mark.parametrize("received", [37_999, 40_001])
def test_events_that_readers_did_not_get_are_a_problem(received: int) -> None:
    measured = {**filled(style("fan-out"), 1), "events_sent": 40, "subscribers": 1000, "events_received": received}
    problem = f"events_received is {received:,}, and events_sent x subscribers is 40,000"
    assert style("fan-out").problems(measured) == [problem]


def test_a_few_events_may_have_two_appends() -> None:
    measured = {**filled(style("fan-out"), 1), "events_sent": 40, "subscribers": 1000, "events_received": 38_000}
    assert style("fan-out").problems(measured) == []


@pytest.mark.parametrize("received", [1_999_999, 2_000_001])
def test_every_byte_of_a_catch_up_counts(received: int) -> None:
    measured = {
        **filled(style("catch-up"), 1),
        "pre_bytes_total": 10_000,
        "clients": 200,
        "bytes_received_total": received,
    }
    assert len(style("catch-up").problems(measured)) == 1


def generator(path: Path, measured: object, *, code: int = 0) -> str:
    """A program in place of ds-bench, which prints a report and writes its arguments beside itself."""
    text = f"""\
import json, pathlib, sys
pathlib.Path({str(path)!r} + ".arguments").write_text(json.dumps(sys.argv[1:]))
print({json.dumps(measured)!r})
sys.exit({code} and "out of order")
"""
    return program(path, text)


def append_report(answered: int) -> dict[str, object]:
    return {
        "aggregate_ops_per_sec": 1234.5,
        "latency_ms": {"p99_ms": 6.7},
        "counts": {"ok": answered, "other_err": 0, "backpressure": 0},
    }


@pytest.mark.parametrize(
    ("answered", "problem"),
    [(APPENDED, None), (APPENDED + 1, f"{APPENDED + 1} appends were answered, {APPENDED} are in the stream")],
)
def test_a_visit_counts_the_appends_of_the_stream(
    answered: int, problem: str | None, electric: targets.Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ds-bench"
    monkeypatch.setenv("DS_BENCH", generator(path, append_report(answered)))
    samples = ds_bench.visit(electric, [style("append")], 1, seconds=3)
    assert samples == [
        Sample(1, targets.ELECTRIC, "append", 1234.5, problem),
        Sample(1, targets.ELECTRIC, "append-p99", 6.7, problem),
    ]
    arguments = json.loads(path.with_name("ds-bench.arguments").read_text())
    assert arguments[0] == "append"
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    assert options.pop("--target").startswith("http://127.0.0.1:")
    assert options == {
        "--api-style": "durable",
        "--stream": APPEND_STREAM,
        "--connections": "64",
        "--payload-bytes": str(APPEND_BYTES),
        "--duration-secs": "3",
    }
    assert electric.pid is None


def test_a_generator_that_fails_is_an_error_of_its_style(
    electric: targets.Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS_BENCH", generator(tmp_path / "ds-bench", {}, code=1))
    with pytest.raises(MeasurementError, match="ended with 1: out of order"):
        ds_bench.measure(style("mixed"), Address("127.0.0.1", 1, targets.STREAMS), 1)
    samples = ds_bench.visit(electric, [style("mixed")], 0, seconds=1)
    assert {sample.error for sample in samples} == {"ds-bench ended with 1: out of order"}
    assert len(samples) == len(style("mixed").figures)


def test_without_the_generator_the_program_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DS_BENCH", raising=False)
    assert ds_bench.main([]) == 2
    assert "DS_BENCH names no program" in capsys.readouterr().err


def test_the_table_has_a_ratio_for_each_figure_and_the_errors_below() -> None:
    measured = results(append=(500, 1000), append_p99=(4, 2))
    measured.samples[3] = Sample(0, targets.ELECTRIC, "append-p99", 2, "a timeout")
    lines = ds_bench.table(measured, [style("append")]).splitlines()
    assert lines[0] == "|  | unit | ours, SQLite | Electric, WAL | ours, SQLite / Electric |"
    assert lines[2] == "| append: one stream, 64 producers ↑ | req/s | 500 | 1,000 | 0.50 |"
    assert lines[3] == "| append: one stream, 64 producers, p99 ↓ | ms | 4.00 | error | – |"
    assert lines[5:] == ["- append: one stream, 64 producers, p99, electric, round 1: a timeout"]
