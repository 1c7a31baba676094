from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from typer.testing import CliRunner

from fanfold_loadtest.cli import app
from fanfold_loadtest.plan import Progress
from fanfold_loadtest.telemetry import RunCollector


def told(collector: RunCollector) -> list[str]:
    registry = CollectorRegistry()
    registry.register(collector)
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_processes_of_a_run_are_added_up_where_that_makes_sense() -> None:
    collector = RunCollector("celebrity")
    first = Progress("during", 90, 10, 5.0, 250.0, arrivals=100, late=3, dropped=2, under_way=5, cpu_cores=0.5)
    collector.update([first, Progress("during", 10, 0, 1.0, 2.0, arrivals=10)])
    lines = told(collector)
    run = 'scenario="celebrity"'
    assert f'fanfold_loadtest_running{{phase="during",{run}}} 1.0' in lines
    assert f'fanfold_loadtest_requests_total{{outcome="good",{run}}} 90.0' in lines
    assert f'fanfold_loadtest_requests_total{{outcome="failed",{run}}} 10.0' in lines
    assert f'fanfold_loadtest_arrivals_total{{{run},state="on time"}} 105.0' in lines
    assert f'fanfold_loadtest_arrivals_total{{{run},state="late"}} 3.0' in lines
    assert f'fanfold_loadtest_arrivals_total{{{run},state="dropped"}} 2.0' in lines
    assert f'fanfold_loadtest_latency_seconds{{process="0",quantile="0.99",{run}}} 0.25' in lines
    assert f'fanfold_loadtest_latency_seconds{{process="1",quantile="0.99",{run}}} 0.002' in lines
    assert f'fanfold_loadtest_cpu_cores{{process="0",{run}}} 0.5' in lines


def test_before_anything_was_told_no_phase_runs_and_nothing_is_counted() -> None:
    lines = told(RunCollector("browse"))
    assert not [line for line in lines if "running" in line]
    assert all(line.endswith(" 0.0") for line in lines)


def test_an_address_that_is_none_or_taken_is_refused_in_one_line() -> None:
    wrong = CliRunner(env={"COLUMNS": "200"}).invoke(
        app, ["canary", "--url", "http://127.0.0.1:9", "--metrics", "9100"]
    )
    assert wrong.exit_code == 2
    assert "127.0.0.1:9646" in wrong.stderr
    away = CliRunner().invoke(app, ["canary", "--url", "http://127.0.0.1:9", "--metrics", "192.0.2.1:9100"])
    assert away.exit_code == 3
    assert "cannot listen on 192.0.2.1:9100" in away.stderr


def test_a_canary_without_a_gateway_ends_with_one_line() -> None:
    result = CliRunner().invoke(app, ["canary", "--url", "http://127.0.0.1:9", "--metrics", "127.0.0.1:0"])
    assert result.exit_code == 1
    assert result.stderr.startswith("fanfold-loadtest: POST /v1/accounts: ConnectError")
