"""Lineage from the sources that people have already: Metaflow's runs and Dagster's assets.

Nothing is imported here, so that a flow that records its reads (`runway_lineage.steps`) needs nothing but Metaflow.
"""
