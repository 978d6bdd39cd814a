"""Text for people: control characters made visible, plurals, suggestions for misspelt names; YAML with line numbers."""

from __future__ import annotations

from maskscore.text.escaping import escaped, one_line
from maskscore.text.messages import closest, counted, did_you_mean
from maskscore.text.yaml_text import YamlText, read_yaml, read_yaml_file

__all__ = [
    "YamlText",
    "closest",
    "counted",
    "did_you_mean",
    "escaped",
    "one_line",
    "read_yaml",
    "read_yaml_file",
]
