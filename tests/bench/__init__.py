"""Benchmarks: ``python -m bench [NAME ...]`` with ``tests/`` on the path, or ``make bench``.

Each module measures its alternatives in turn in one run, checks that they agree, prints a table, and adds its figures
to ``build/bench.json``. A figure in processor seconds stays the same on a machine that others use too; of those in
seconds, compare only what one run printed.
"""
