# ruff: noqa: A005 - nobody imports it by its short name
"""Statistics that the rest of the core stands on: pure functions of counts, no clock, no randomness.

`bins` (from values to counts), `drift` (distance and significance of one pair), `fleet` (the same numbers for
every feature of every model at once), `performance` (did the metric get worse), `sample` (what
counts as a sample).
"""
