"""The page of codes lists every code there is."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import pytest

from maskscore.errors import FailureCode, SkipCode

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "codes.md"


@pytest.mark.parametrize("codes", [FailureCode, SkipCode])
def test_every_code_is_documented(codes: type[StrEnum]) -> None:
    page = PAGE.read_text("utf-8")
    assert [code for code in codes if f"`{code}`" not in page] == []
