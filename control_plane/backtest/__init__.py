"""Policies tried on history: the same rules under virtual time, in a world that answers what would have been known.

`world` (the port: what a model would have seen, and how good each version truly was), `contenders` (who decides),
`run` (decide, evolve and plan under virtual time), `scoring` (retrains, stale hours, false alarms, delay, regret),
`recorded` (the world of a real fleet's history), `report` (a table, JSON and a page).
"""
