"""Seeded streams whose concept changes at known times, as a world for backtests, and river's detectors beside Runway.

`concepts` (SEA, Agrawal, Hyperplane: rows and labels by river's own rules), `timeline` (what holds when), `versions`
(models that are really trained on them), `world` (the port of a backtest), `detectors` (ADWIN, DDM, Page-Hinkley as
contenders), `compare` (all side by side). `python -m bench.streams` prints the table.
"""
