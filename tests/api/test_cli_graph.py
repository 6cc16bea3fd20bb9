"""What `runway` prints of the graph: impact, causes, changes that are not made yet."""

from runway_cli.impact_text import PathWords
from runway_client import messages

from tests.api.control_plane_fake import ControlPlaneFake
from tests.api.shells import Runner, text


def test_impact_is_an_answer(runway: Runner) -> None:
    assert runway("impact weather --paths").out == text("""
dataset:weather reaches 3 nodes in 3 waves: 2 models (1 on tier 1) and 1 feature.
On tier 1: air_time.
Owned by anna@example.com and boris@example.com (teams flight_ops and passenger_experience).
Retraining the 2 models takes 2 waves and costs 12.5 GPU hours; what 1 of them costs is not known.
The answer is complete; of its discovered edges the oldest was last seen 3 d ago (2013-03-01 11:00).
1 edge of it is suspect: its source has not shown it lately.

NODE                       TIER  TEAM                  OWNER              HOPS  PATHS  SHORTEST
wave 1
  feature:temp                -  -                     -                     1      1  weather -> temp
wave 2
  model:air_time              1  flight_ops            anna@example.com      2      1  weather -> temp -> air_time
wave 3
  model:arrival_delay_jfk     2  passenger_experience  boris@example.com     3      2  weather -> temp -> air_time -> arrival_delay_jfk

Next
  retrain in the order of the waves: `runway retrains request air_time --reason ...`
  before taking it away: `runway what-if --retire dataset:weather`
""")  # noqa: E501 (what is printed)
    assert runway("impact feature:temp").out == "feature:temp reaches nothing.\n"
    shallow = runway("impact dataset:weather --depth 1").out
    assert shallow.startswith("dataset:weather reaches 1 node in 1 wave within 1 hop: 1 feature.\nINCOMPLETE: 2 nodes")
    assert "INCOMPLETE: more than 100,000 nodes" in runway("impact model:air_time --upstream").out
    chosen = runway("impact dataset:weather --kind model --type reads_feature").out
    assert chosen.startswith(
        "dataset:weather reaches 3 nodes along reads_feature: 2 models (1 on tier 1) and 1 feature. "
        "2 of them are asked for, in 2 waves.\n"
    )


def test_every_path_is_folded_under_the_one_above(runway: Runner, fake: ControlPlaneFake) -> None:
    out = runway("impact weather --paths=all").out
    assert "  weather -> temp -> air_time -> arrival_delay_jfk\n" in out
    assert "           -> wind -> air_time -> arrival_delay_jfk\n" in out
    asked = [request.filter.paths for request in fake.requests("GraphService/GetImpact")]
    assert asked.count(messages.PATHS_ALL) == 1
    assert runway("impact --paths all weather").out == out
    assert runway("paths weather model:air_time").out == text("""
3 paths lead from dataset:weather to model:air_time, the shortest in 2 hops.
INCOMPLETE: 1 of 3 paths left out: the limit is 2.

HOPS  PATH
   2  weather -> temp -> air_time
   3                  -> wind -> air_time
""")
    assert "No path leads from model:air_time to dataset:weather." in runway("paths model:air_time weather").out


def test_long_paths_and_shared_names() -> None:
    chain = [f"model:m{number}" for number in range(9)]
    assert PathWords(chain).whole(chain) == "m0 -> m1 -> (4 more) -> m6 -> m7 -> m8"
    assert PathWords(["model:x", "feature:x", "model:y"]).whole(["feature:x", "model:x", "model:y"]) == (
        "feature:x -> model:x -> y"
    )


def test_causes(runway: Runner) -> None:
    assert runway("causes model:air_time model:arrival_delay_jfk").out == text("""
air_time and arrival_delay_jfk all stand on 2 nodes: 1 feature and 1 dataset.
Look first at feature:temp, which is nearest to them.
It may have begun in dataset:weather, on which nothing lies upstream.

CAUSE            HOPS  NEAREST  ROOT  TEAM  OWNER
feature:temp        2  yes      -     data  -
dataset:weather     3  -        yes   -     cleo@example.com

Next
  what else it reaches: `runway impact feature:temp`
""")
    assert "nothing upstream in common" in runway("causes consumer:air_time arrival_delay_jfk").out
    assert runway("causes weather").code == 2


def test_what_if(runway: Runner, fake: ControlPlaneFake) -> None:
    out = runway("what-if --retire weather --remove weather feature:temp").out
    assert "Directly hit: model:air_time.\nNothing upstream would be left for model:air_time.\n" in out
    asked = fake.requests("GraphService/PreviewChange")[0]
    assert list(asked.retire_node_ids) == ["dataset:weather"]
    assert [(edge.upstream_id, edge.type) for edge in asked.remove] == [
        ("dataset:weather", messages.DEPENDENCY_TYPE_DERIVED_FROM)
    ]
    refused = runway("what-if --add model:air_time feature:temp").out
    assert refused.startswith("Nothing would change.\nIt would be refused:\n- feature:temp cannot depend on model:air")
    assert runway("what-if").code == 2


def test_nodes_are_renamed_and_removed(runway: Runner) -> None:
    assert runway("nodes rename temp temperature").out == "feature:temp is feature:temperature now, with 2 edges.\n"
    dry = runway("nodes rename temp feature:x --dry-run").out
    assert dry == "feature:temp would become feature:x with 2 edges; nothing was changed.\n"
    merged = runway("nodes rename temp dataset:weather").out
    assert merged == "feature:temp and dataset:weather are one now: dataset:weather; 2 edges moved.\n"
    assert runway("nodes rename temp dataset:weather --dry-run").out.startswith("feature:temp would become one with")
    assert runway("nodes remove temp weather --reason gone").out == "2 nodes removed.\n"


def test_graph_diff(runway: Runner) -> None:
    assert runway("graph diff --from 41").out == text("""
2 nodes and 1 dependency changed between revisions 41 and 42.

   NODE             DOWNSTREAM    WHAT
+  feature:wind                   cleo@example.com
~  feature:temp                   owner: anna -> ben
-  dataset:weather  feature:temp  derived_from
""")


def test_graph(runway: Runner) -> None:
    assert runway("graph").out == text("""
5 nodes (2 models, 1 feature, 1 consumer and 1 dataset) and 2 dependencies.

UPSTREAM         DOWNSTREAM      TYPE
dataset:weather  feature:temp    derived_from
feature:temp     model:air_time  reads_feature
""")
    assert '"feature:temp" -> "model:air_time";' in runway("graph --dot").out
