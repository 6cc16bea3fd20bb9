"""The fleet as YAML files, to and from the contract's `Manifest`.

    found = read_fleet("fleet")                      # found.problems: all that is wrong, each with file:line:column
    changes = runway.fleet.apply(found.manifest)
    write_fleet(runway.fleet.export(), "fleet")      # the same fleet gives the same bytes

See docs/fleet.md.
"""

from runway_client.fleet_files.finding import Problem
from runway_client.fleet_files.reading import FleetFiles, read_fleet, read_texts
from runway_client.fleet_files.writing import StrayFiles, render, write_fleet
from runway_client.fleet_files.yaml_text import Place

__all__ = ["FleetFiles", "Place", "Problem", "StrayFiles", "read_fleet", "read_texts", "render", "write_fleet"]
