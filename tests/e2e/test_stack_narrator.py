"""What the narrator tells, what it leaves out, and what it says once."""

import json

from runway_client import messages

from stack.narrator import Story, of_status


def event(kind: str, sentence: str, model_id: str = "air_time", **payload: object) -> messages.Event:
    return messages.Event(kind=kind, model_id=model_id, sentence=sentence, payload_json=json.dumps(payload))


def standing(model_id: str, drift: float, feature: str = "temp", psi: float = 1.3) -> messages.Staleness:
    evaluation = messages.Evaluation(
        signals=[messages.Signal(name="age", value=1.0), messages.Signal(name="input_drift", value=drift)],
        top_features=[messages.FeatureDrift(name=feature, psi=psi)],
    )
    return messages.Staleness(model_id=model_id, evaluation=evaluation)


def test_a_verdict_is_told_with_its_second_reason() -> None:
    told = Story().of_event(
        event(
            "VerdictChanged",
            "air_time is STALE (was FRESH): AUC fell",
            from_level="FRESH",
            to_level="STALE",
            evaluation={"reasons": ["AUC fell", "temp drifted"]},
        )
    )
    assert told == "air_time is STALE (was FRESH): AUC fell; temp drifted"


def test_first_verdicts_are_told_together() -> None:
    story = Story()
    for name in ("b", "a"):
        first = event("VerdictChanged", "x", name, from_level="UNKNOWN", to_level="FRESH")
        assert story.of_event(first) is None
    assert story.of_first_verdicts() == "a, b are FRESH: enough data for a first verdict"
    assert story.of_first_verdicts() is None


def test_unharmed_models_are_told_together_and_each_harmed_one_by_itself() -> None:
    story = Story()
    for name in ("b", "a"):
        assert story.of_event(event("CascadeSettled", "x", name, harmed=False)) is None
    assert story.of_event(event("CascadeSettled", "c is harmed by", "c", harmed=True)) == "c is harmed by"
    assert story.of_unharmed() == "a, b are unharmed by what was promoted upstream: no retrain"
    assert story.of_unharmed() is None


def test_bookkeeping_is_not_told() -> None:
    story = Story()
    for kind in ("ClockAdvanced", "LeaseRenewed", "StreakChanged", "ModelRegistered", "SomethingNewer"):
        assert story.of_event(event(kind, "x")) is None


def test_a_retrain_that_succeeded_is_told_by_its_rollout_only() -> None:
    story = Story()
    assert story.of_event(event("RetrainEnded", "done", state="PROMOTED")) is None
    assert story.of_event(event("RetrainEnded", "rt_000001 ended failed", state="FAILED")) == "rt_000001 ended failed"
    assert story.of_event(event("RolloutEnded", "air_time version 2 was promoted")) is not None


def test_drift_is_told_when_it_passes_a_step_and_again_after_it_fell() -> None:
    story = Story()
    assert story.of_drift([standing("a", 0.05), standing("b", 0.0)]) == []
    assert story.of_drift([standing("a", 0.3), standing("b", 0.3, psi=4.3)]) == [
        "drift rises in a, b: temp most (PSI 4.30)"
    ]
    assert story.of_drift([standing("a", 0.3), standing("b", 0.49)]) == []
    assert story.of_drift([standing("a", 0.0)]) == []
    assert story.of_drift([standing("a", 0.3, "dewp", 0.7)]) == ["drift rises in a: dewp most (PSI 0.70)"]


def test_a_fleet_without_evaluations_does_not_drift() -> None:
    assert Story().of_drift([messages.Staleness(model_id="a")]) == []


def test_where_the_year_stands() -> None:
    status = messages.GetStatusResponse(
        verdicts={"FRESH": 10, "STALE": 0, "AT_RISK": 3},
        retrains={"WAITING": 2},
        predictions_ingested=31204,
        outcomes_ingested=30111,
    )
    assert of_status(status) == "3 AT_RISK, 10 FRESH; 31,204 predictions, 30,111 outcomes; 2 retrains under way"
