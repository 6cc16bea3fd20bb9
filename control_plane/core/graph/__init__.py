"""The dependency graph: what breaks if this changes, and in which order to retrain.

`facts` (facts and snapshot), `dependency_graph` (the graph by node id), `rules` (what may be declared),
`impact` (downstream and upstream sets, paths), `order` (waves among models), `layout` (the arrays behind the
last two).
"""
