"""ListModels: filters, text, views, order and pages, against a twin that looks at everything."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from runway.v1 import common_pb2, graph_pb2, policies_pb2, registry_pb2, staleness_pb2

from control_plane.app.model_words import needles_of, text_matches, words_of
from control_plane.app.replica import Submission
from control_plane.core.commands import RecordEvaluation
from control_plane.core.ids import ModelId
from control_plane.core.staleness.verdict import Level
from tests.api.test_ground_truth import predictions, sent
from tests.api.worlds import Api, Host, by, refused
from tests.core.fleets import an_evaluation
from tests.reference import models_twin

WORDS = ["Delay", "ankunft", "ÉTÉ", "Straße", "ﬁnal", "日本", "late-night", "x=y", "v2.1", "air"]
TEAMS = ["ops", "sea", "air_side"]
OWNERS = ["", "anna@example.com", "team:ops", "имя@пример.рф"]
FEATURES = ["temp", "wind_dir", "carrier"]
APPLICATIONS = ["gate_desk", "mail"]
LIVES = {
    "DEPRECATED": registry_pb2.LIFECYCLE_STATE_DEPRECATED,
    "RETIRED": registry_pb2.LIFECYCLE_STATE_RETIRED,
}
KEYS = ["model_id", "tier", "team", "owner", "verdict", "lifecycle"]


def pick(rng: np.random.Generator, values: list[Any], most: int) -> list[Any]:
    count = int(rng.integers(0, most + 1))
    return [values[place] for place in rng.permutation(len(values))[:count]]


async def a_fleet(api: Api, rng: np.random.Generator, size: int) -> list[dict[str, Any]]:
    """Register models of all kinds, and say the same as dicts."""
    await api.graph.DeclareNodes(
        graph_pb2.DeclareNodesRequest(nodes=[graph_pb2.Node(node_id=f"feature:{name}") for name in FEATURES])
    )
    models: list[dict[str, Any]] = []
    for number in range(size):
        model_id = f"{['delay', 'arrival', 'air_time'][number % 3]}_{number}"
        tags = {key: str(rng.integers(3)) for key in pick(rng, ["site", "zone", "Größe"], 2)}
        links = [" ".join(pick(rng, WORDS, 2)) for _ in range(int(rng.integers(2)))]
        applications = pick(rng, APPLICATIONS, 1)
        model: dict[str, Any] = {
            "model_id": model_id,
            "owner": OWNERS[int(rng.integers(len(OWNERS)))],
            "team": TEAMS[int(rng.integers(len(TEAMS)))],
            "tier": int(rng.integers(1, 5)),
            "task_type": ["BINARY", "REGRESSION"][number % 2],
            "description": " ".join(pick(rng, WORDS, 4)),
            "tags": tags,
            "links": links,
            "applications": applications,
            "features": pick(rng, FEATURES, 2),
            "consuming_models": [],
            "verdict": "UNKNOWN",
            "lifecycle": "REGISTERED",
        }
        await api.model(
            model_id,
            owner=model["owner"],
            team=model["team"],
            tier=common_pb2.Tier.ValueType(model["tier"]),
            task_type=common_pb2.TaskType.Value(f"TASK_TYPE_{model['task_type']}"),
            description=model["description"],
            tags=tags,
            consumers=applications,
            links=[
                registry_pb2.Link(kind=registry_pb2.LINK_KIND_RUNBOOK, title=title, url="https://x") for title in links
            ],
        )
        for name in model["features"]:
            await api.edge(f"feature:{name}", f"model:{model_id}")
        if models and rng.random() < 0.3:
            upstream = models[int(rng.integers(len(models)))]
            await api.edge(f"model:{upstream['model_id']}", f"model:{model_id}")
            upstream["consuming_models"].append(model_id)
        if rng.random() < 0.4:
            await api.promote(model_id, await api.version(model_id))
            model["lifecycle"] = "ACTIVE"
            await a_verdict(api, model, stale=bool(rng.random() < 0.5))
        models.append(model)
    for model in models:
        model["consumers"] = model["applications"] + model["consuming_models"]
        if rng.random() < 0.2:
            model["lifecycle"] = ["DEPRECATED", "RETIRED"][int(rng.integers(2))]
            await api.registry.SetLifecycle(
                registry_pb2.SetLifecycleRequest(
                    mutation=by(reason="a test"),
                    model_id=model["model_id"],
                    lifecycle=LIVES[model["lifecycle"]],
                    force=True,
                )
            )
    return models


async def a_verdict(api: Api, model: dict[str, Any], *, stale: bool) -> None:
    looked = an_evaluation(1, api.clock.at, stale=stale)
    for _ in range(3):
        command = RecordEvaluation(model_id=ModelId(model["model_id"]), evaluation=looked)
        await api.plane.node.submit(Submission(command=command, actor="tester", reason=""))
    model["verdict"] = "STALE" if stale else "FRESH"


def request_of(wanted: dict[str, Any], order: list[tuple[str, bool]]) -> registry_pb2.ListModelsRequest:
    return registry_pb2.ListModelsRequest(
        query=wanted.get("query", ""),
        teams=wanted.get("team", []),
        tiers=[common_pb2.Tier.ValueType(tier) for tier in wanted.get("tier", [])],
        tags=wanted.get("tags", []),
        owners=wanted.get("owner", []),
        feature=wanted.get("feature", ""),
        consumer=wanted.get("consumer", ""),
        lifecycles=[registry_pb2.LifecycleState.Value(f"LIFECYCLE_STATE_{one}") for one in wanted.get("lifecycle", [])],
        verdicts=[staleness_pb2.Verdict.Value(f"VERDICT_{one}") for one in wanted.get("verdict", [])],
        task_types=[common_pb2.TaskType.Value(f"TASK_TYPE_{one}") for one in wanted.get("task_type", [])],
        order_by=", ".join(f"{key} desc" if down else key for key, down in order),
    )


async def all_pages(api: Api, request: registry_pb2.ListModelsRequest, size: int) -> list[str]:
    shown: list[str] = []
    request.page.page_size = size
    while True:
        reply = await api.registry.ListModels(request)
        assert len(reply.models) <= size
        shown += [model.model_id for model in reply.models]
        if not reply.next_page_token:
            assert reply.total_size == len(shown)
            return shown
        request.page.page_token = reply.next_page_token


async def test_what_is_found_is_what_looking_at_everything_finds(api: Api) -> None:
    rng = np.random.default_rng(7)
    models = await a_fleet(api, rng, 40)
    texts = [
        *WORDS,
        "DEL",
        "ete",
        "STRASSE",
        "final",
        "日",
        "night",
        "late-n",
        "site=1",
        "gate",
        "temp",
        "anna ops",
        "grösse",
    ]
    hits = 0
    for _ in range(150):
        wanted: dict[str, Any] = {}
        for name, values in (
            ("team", TEAMS),
            ("tier", [1, 2, 3, 4]),
            ("owner", OWNERS[1:]),
            ("lifecycle", models_twin.LIFECYCLES),
            ("verdict", models_twin.VERDICTS),
            ("task_type", ["BINARY", "REGRESSION"]),
        ):
            if rng.random() < 0.25:
                wanted[name] = pick(rng, values, 3)
        if rng.random() < 0.2:
            wanted["tags"] = pick(rng, ["site", "site=1", "zone", "nothing"], 2)
        if rng.random() < 0.2:
            wanted["feature"] = str(rng.choice(["temp", "feature:wind_dir", "nothing"]))
        if rng.random() < 0.2:
            wanted["consumer"] = str(rng.choice(["gate_desk", "consumer:mail", f"model:{models[-1]['model_id']}"]))
        if rng.random() < 0.5:
            wanted["query"] = " ".join(pick(rng, texts, 2))
        order = [(key, bool(rng.random() < 0.5)) for key in pick(rng, KEYS, 3)]
        expected = models_twin.found(models, wanted, order)
        shown = await all_pages(api, request_of(wanted, order), int(rng.integers(1, 15)))
        assert shown == expected, (wanted, order)
        hits += len(expected) not in (0, len(models))
    assert hits > 50


async def test_a_page_goes_on_where_the_last_one_ended_whatever_happens_between(api: Api) -> None:
    for number in range(9):
        await api.model(f"m{number}", tier=common_pb2.Tier.ValueType(1 + number % 3))
    request = registry_pb2.ListModelsRequest(order_by="tier desc", page=common_pb2.PageRequest(page_size=4))
    first = await api.registry.ListModels(request)
    assert [model.model_id for model in first.models] == ["m2", "m5", "m8", "m1"]
    await api.model("m9", tier=common_pb2.TIER_3)
    await api.model("m0a", tier=common_pb2.TIER_2)
    await api.model("m3a", tier=common_pb2.TIER_2)
    request.page.page_token = first.next_page_token
    request.page.page_size = 100
    second = await api.registry.ListModels(request)
    assert [model.model_id for model in second.models] == ["m3a", "m4", "m7", "m0", "m3", "m6"]
    assert second.total_size == 12


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"teams": ["flights"]}, "page.page_token"),
        ({"order_by": "tier"}, "page.page_token"),
        ({"query": "m"}, "page.page_token"),
        ({"page": common_pb2.PageRequest(page_size=1, page_token="k:m0")}, "page.page_token"),
        ({"page": common_pb2.PageRequest(page_size=1, page_token="gqR0ZXN0")}, "page.page_token"),
        ({"page": common_pb2.PageRequest(page_size=1, page_token="é")}, "page.page_token"),
        ({"order_by": "tier, tier desc"}, "order_by"),
        ({"order_by": "size, tier up, model_id"}, "order_by"),
        ({"tiers": [common_pb2.TIER_UNSPECIFIED]}, "tiers[0]"),
        ({"verdicts": [staleness_pb2.VERDICT_UNSPECIFIED]}, "verdicts[0]"),
    ],
)
async def test_a_token_belongs_to_its_query_and_nonsense_is_named(api: Api, change: dict[str, Any], field: str) -> None:
    for number in range(3):
        await api.model(f"m{number}")
    page = common_pb2.PageRequest(page_size=1)
    page.page_token = (await api.registry.ListModels(registry_pb2.ListModelsRequest(page=page))).next_page_token
    await api.registry.ListModels(registry_pb2.ListModelsRequest(page=page))
    refusal = await refused(api.registry.ListModels(registry_pb2.ListModelsRequest(**{"page": page, **change})))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {field}


async def test_all_that_is_wrong_with_an_order_is_told(api: Api) -> None:
    refusal = await refused(
        api.registry.ListModels(registry_pb2.ListModelsRequest(order_by="size, tier up, tier, tier"))
    )
    assert len(refusal.described) == 3
    assert "registered_at" in refusal.described[0]


# What a list shows is what is there


async def test_a_list_shows_every_change_at_once(api: Api) -> None:
    async def shown() -> registry_pb2.Model:
        reply = await api.registry.ListModels(registry_pb2.ListModelsRequest())
        [model] = [model for model in reply.models if model.model_id == "delay"]
        assert model == (await api.registry.GetModel(registry_pb2.GetModelRequest(model_id="delay"))).model
        return model

    await api.model("delay")
    await api.model("down")
    before = await shown()
    await api.edge("model:delay", "model:down")
    assert (await shown()).consuming_models == ["down"]
    await api.policies.SetPolicies(
        policies_pb2.SetPoliciesRequest(
            scope="tier:2", policies=policies_pb2.Policies(staleness=policies_pb2.StalenessPolicy(window_days=3))
        )
    )
    assert (await shown()).effective_policies.staleness.window_days == 3
    assert (await shown()).etag == before.etag
    request = registry_pb2.SetLifecycleRequest(model_id="down", lifecycle=registry_pb2.LIFECYCLE_STATE_RETIRED)
    await api.registry.SetLifecycle(request)
    assert (await shown()).consuming_models == []


# Views


async def listed(api: Api, view: Any, **filters: Any) -> list[str]:
    reply = await api.registry.ListModels(registry_pb2.ListModelsRequest(view=view, **filters))
    return [model.model_id for model in reply.models]


async def test_views_answer_their_questions(api: Api) -> None:
    await api.model("nobodys", owner="")
    await api.serving("forced")
    await api.serving("used", consumers=["desk"])
    await api.model("failing")
    await api.model("over", owner="")
    over = registry_pb2.SetLifecycleRequest(model_id="over", lifecycle=registry_pb2.LIFECYCLE_STATE_RETIRED)
    await api.registry.SetLifecycle(over)
    assert await listed(api, registry_pb2.MODEL_VIEW_NO_OWNER) == ["nobodys"]
    retired = [registry_pb2.LIFECYCLE_STATE_RETIRED]
    assert await listed(api, registry_pb2.MODEL_VIEW_NO_OWNER, lifecycles=retired) == ["over"]
    assert await listed(api, registry_pb2.MODEL_VIEW_NEVER_VALIDATED) == ["forced", "used"]
    assert await listed(api, registry_pb2.MODEL_VIEW_UNUSED) == ["forced"]
    assert await listed(api, registry_pb2.MODEL_VIEW_ALERTED) == []
    await a_verdict(api, {"model_id": "used"}, stale=True)
    assert await listed(api, registry_pb2.MODEL_VIEW_ALERTED) == ["used"]
    assert api.plane.node.state.models[ModelId("used")].standing.level is Level.STALE
    past = common_pb2.ReadOptions(as_of_revision=1)
    refusal = await refused(listed(api, registry_pb2.MODEL_VIEW_UNUSED, read=past))
    assert set(refusal.violations) == {"view"}


async def test_traffic_is_when_a_model_last_got_a_prediction(tmp_path: Path) -> None:
    host = Host(home=tmp_path)
    async with host.life() as api:
        await api.serving("busy")
        await api.serving("idle")
        [answer] = await sent(api, [predictions(model_id="busy")])
        assert answer.WhichOneof("outcome") == "accepted"
        assert await listed(api, registry_pb2.MODEL_VIEW_UNUSED) == ["idle"]
        api.clock.at += timedelta(days=20)
        assert await listed(api, registry_pb2.MODEL_VIEW_UNUSED) == ["idle"]
    async with host.life() as api:
        assert await listed(api, registry_pb2.MODEL_VIEW_UNUSED) == ["idle"]
        api.clock.at += timedelta(days=12)
        assert await listed(api, registry_pb2.MODEL_VIEW_UNUSED) == ["busy", "idle"]


def test_words_are_compared_without_case_and_look_alikes() -> None:
    assert words_of("\uff26\uff35LL Width \ufb01") == {"full", "width", "fi"}
    text = "\n" + "\n".join(sorted(words_of("delay_jfk anna@example.com")))
    assert text_matches(text, needles_of("jfk delay_j anna@ex EXAMPLE"))
    assert not text_matches(text, needles_of("elay"))
    assert not text_matches(text, needles_of("jfk nobody"))
    assert text_matches(text, needles_of("jfk/delay"))
