"""The decorator is part of other people's flows: it brings nothing along, and never fails a step."""

import subprocess
import sys

import pytest
from runway_lineage.naming import name_problem, named_node
from runway_lineage.steps import RECORDED_ARTIFACT, runway_lineage


def test_importing_it_brings_neither_grpc_nor_metaflow() -> None:
    code = "import sys, runway_lineage.steps; print(sorted({'grpc', 'metaflow', 'google'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_step_keeps_its_name_its_marks_and_its_error() -> None:
    class Flow:
        @runway_lineage
        def start(self) -> None:
            """Begin."""
            raise RuntimeError("its own")

    assert (Flow.start.__name__, Flow.start.__doc__) == ("start", "Begin.")
    flow = Flow()
    with pytest.raises(RuntimeError, match="its own"):
        flow.start()
    assert getattr(flow, RECORDED_ARTIFACT) == []


@pytest.mark.parametrize("name", ["model:air_time", "s3://lake/x", "metaflow://Flow", "model://registry/x", "weather"])
def test_names_that_are_taken(name: str) -> None:
    assert name_problem(name) == ""
    node = named_node(name)
    assert (node.node_id or node.external_id) == name


@pytest.mark.parametrize("name", ["", "  ", "model:Air Time", "MODEL:air_time", "feature:", "dataset:1st", "x" * 2001])
def test_names_that_are_not(name: str) -> None:
    assert name_problem(name)
