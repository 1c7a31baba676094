from __future__ import annotations

import pytest

from dashboards.boards import BOARDS
from dashboards.query import Window
from dashboards.render import AXES, main, shown


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0421, "s", "42.1 ms"),
        (2.5, "s", "2.5 s"),
        (0.99951, "percentunit", "99.95 %"),
        (1234.0, "reqps", "1,234/s"),
        (3 * 2**20, "bytes", "3 MiB"),
        (7.0, "short", "7"),
    ],
)
def test_a_number_is_shown_in_its_unit(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_every_unit_of_a_graph_has_an_axis() -> None:
    assert {panel.unit for board in BOARDS for panel in board.panels} <= AXES.keys()


def test_choices_are_put_where_a_query_leaves_them_open() -> None:
    window = Window(0, 60, 1, rate="2m", choices=(("namespace", "shop"),))
    query = "sum (rate(fanfold_gateway_requests_total{{scope}}[$__rate_interval]))"
    assert window.filled(query) == ('sum (rate(fanfold_gateway_requests_total{namespace=~"shop",platform=~".+"}[2m]))')


def test_a_dashboard_that_there_is_not_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--prometheus", "http://127.0.0.1:9", "--out", "x", "--board", "weather"])
    assert "overview" in capsys.readouterr().err
