"""The reference page of codes is generated from the table of codes."""

from __future__ import annotations

from pathlib import Path

from maskscore.codes import FailureCode, advice_for, codes_markdown
from maskscore.errors import JobError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "codes.md"


def test_the_page_is_made_of_the_table() -> None:
    assert PAGE.read_text("utf-8") == codes_markdown(), "run `make docs`"


def test_every_failure_has_advice() -> None:
    assert [code for code in FailureCode if not advice_for(code)] == []
    assert advice_for("of_another_release") == ""


def test_whether_a_failure_is_transient_stands_in_the_table() -> None:
    assert [code for code in FailureCode if JobError(code, "").transient] == ["out_of_memory", "storage_unavailable"]
