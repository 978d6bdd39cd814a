"""The declared metrics: that the page about them is true, and that Prometheus takes them."""

from __future__ import annotations

from pathlib import Path

from maskscore.cli.metrics import metrics_markdown


def test_the_page_of_metrics_is_what_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert page.read_text("utf-8") == metrics_markdown(), "run `make docs`"
