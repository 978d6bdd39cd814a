"""The queries of alerts, dashboard and scaler parse, and ask for metrics and labels that are exported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from manifests import DEPLOY, DOCKER, of_kind, overlay
from maskscore.observability.metrics import METRICS, Metric

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "components" / "monitoring" / "dashboard.json").read_text())
SAMPLES: dict[str, Metric] = {sample: metric for metric in METRICS for sample in metric.samples}
# What Prometheus puts on every series itself.
TARGET_LABELS = {"namespace", "instance", "pod", "job"}
OF_RATES = {"rate", "increase", "irate"}


@dataclass(frozen=True)
class Selector:
    """One series that a query asks for, and the function that is applied to its range, where it asks for one."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    function: str | None


def rules() -> list[dict[str, Any]]:
    (manifest,) = of_kind(overlay("keda"), "PrometheusRule")
    return [rule for group in manifest["spec"]["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield f"alert {rule['alert']}", rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"panel {panel['title']} {target['refId']}", target["expr"]
    for scaler in of_kind(overlay("keda-models"), "ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            yield scaler["metadata"]["name"], trigger["metadata"]["query"]


QUERIES = dict(queries())
every_query = pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())


def parsed(query: str) -> Any:
    # Grafana puts these in before Prometheus sees the query.
    return promql.parse(query.replace("$__rate_interval", "1m").replace("$namespace", "any"))


def selectors(query: str) -> list[Selector]:
    found: list[Selector] = []
    functions: list[str] = []

    ranged: list[str] = []

    def enter(node: Any) -> bool:
        if isinstance(node, promql.Call):
            functions.append(node.func.name)
        if isinstance(node, promql.MatrixSelector):
            ranged.append(functions[-1])
        if isinstance(node, promql.VectorSelector):
            matchers = tuple((m.name, str(m.op).rsplit(".")[-1], m.value) for m in node.matchers.matchers)
            found.append(Selector(node.name or "", matchers, ranged[-1] if ranged else None))
        return True

    def leave(node: Any) -> bool:
        if isinstance(node, promql.Call):
            functions.pop()
        if isinstance(node, promql.MatrixSelector):
            ranged.pop()
        return True

    promql.walk(parsed(query), pre_visit=enter, post_visit=leave)
    return found


def test_there_is_something_to_check() -> None:
    assert len(QUERIES) > 30
    assert all(selectors(query) for query in QUERIES.values())


def test_a_wrong_query_is_found() -> None:
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        parsed("sum by (state (maskscore_jobs)")
    (selector,) = selectors('sum(rate(maskscore_masks_total{code="x"}[5m]))')
    assert selector == Selector("maskscore_masks_total", (("code", "Equal", "x"),), "rate")


@every_query
def test_every_metric_is_exported(query: str) -> None:
    for selector in selectors(query):
        assert selector.name in SAMPLES


@every_query
def test_counters_are_asked_for_their_rate_and_gauges_are_not(query: str) -> None:
    for selector in selectors(query):
        grows = SAMPLES[selector.name].kind in ("counter", "histogram")
        assert grows == (selector.function in OF_RATES)


@every_query
def test_labels_and_their_values_are_the_codes(query: str) -> None:
    for selector in selectors(query):
        labels = SAMPLES[selector.name].labels
        for name, operator, value in selector.matchers:
            assert name in {*labels, *TARGET_LABELS}
            documented = re.findall(r"`([a-z_]+)`", labels.get(name, ""))
            if documented and operator in ("Equal", "Re"):
                assert set(value.split("|")) <= set(documented)


@every_query
def test_what_is_grouped_by_is_a_label(query: str) -> None:
    known = {"le", *TARGET_LABELS}.union(*(SAMPLES[selector.name].labels for selector in selectors(query)))

    def enter(node: Any) -> bool:
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= known
        return True

    promql.walk(parsed(query), pre_visit=enter)


def test_each_metric_is_watched_somewhere() -> None:
    shown = {SAMPLES[selector.name].name for query in QUERIES.values() for selector in selectors(query)}
    assert {metric.name for metric in METRICS} <= shown


def test_alerts_say_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        # Their value is a number; anything else that Go would put in is misspelt.
        inserted = re.findall(r"{{\s*(.*?)\s*}}", rule["annotations"]["summary"] + rule["annotations"]["description"])
        for expression in inserted:
            # Of what is counted, whole numbers: `increase` and `humanize` make 6.074 jobs of six.
            assert re.fullmatch(r'\$value \| (humanize(Duration|Percentage)|printf "%\.0f")', expression)


def test_compose_has_the_same_alerts() -> None:
    (manifest,) = of_kind(overlay("keda"), "PrometheusRule")
    assert yaml.safe_load((DOCKER / "prometheus" / "alerts.yaml").read_text()) == manifest["spec"], "run `make docs`"


def test_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_panels_obey_the_variables() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    asked = variables["namespace"]["query"]["query"]
    assert re.fullmatch(r"label_values\((\w+), namespace\)", asked)[1] in SAMPLES  # type: ignore[index]
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            for selector in selectors(target["expr"]):
                assert ("namespace", "Re", "any") in selector.matchers


def test_gauges_of_the_exporter_are_told_apart_by_namespace() -> None:
    """`max` of two exporters of one namespace is right, of two namespaces it hides one of them."""
    told = {metric.name for metric in METRICS if metric.side == "exporter"} - {"maskscore_oldest_waiting_seconds"}

    def enter(node: Any) -> bool:
        asked = node.expr if isinstance(node, promql.AggregateExpr) else None
        if isinstance(asked, promql.VectorSelector) and asked.name in told and not of_one_namespace(asked):
            assert node.modifier is not None
            # A sum over the namespaces is one of what is told apart within it.
            assert "namespace" in node.modifier.labels
        return True

    def of_one_namespace(asked: Any) -> bool:
        return any(m.name == "namespace" and str(m.op).endswith(".Equal") for m in asked.matchers.matchers)

    for query in QUERIES.values():
        promql.walk(parsed(query), pre_visit=enter)
    checked = sum(selector.name in told for query in QUERIES.values() for selector in selectors(query))
    assert checked > 10


def test_the_dashboard_travels_with_the_manifests() -> None:
    (carried,) = [m for m in of_kind(overlay("keda"), "ConfigMap") if "maskscore.json" in m["data"]]
    assert json.loads(carried["data"]["maskscore.json"]) == DASHBOARD
    assert carried["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.needs("promtool (Debian: prometheus)", shutil.which("promtool"), optional=True)
def test_alerts_fire_when_they_should() -> None:
    tests = Path(__file__).parents[1] / "data" / "alerts.test.yaml"
    done = subprocess.run(["promtool", "test", "rules", tests], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
