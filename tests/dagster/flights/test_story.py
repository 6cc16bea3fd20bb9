"""The offline story, on its shortest chapter."""

import numpy as np
import pyarrow as pa
import pytest

from assets.flights import story
from assets.flights.profile import recount, reference_histograms, reference_profile


def test_two_months_of_one_model_show_drift_and_a_refusal(
    year_features: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    chapters = list(story.story({"weather_disruption"}, range(3, 5)))
    march, april = chapters
    assert march.static == march.candidate == march.kept
    assert march.drifted == april.drifted == "temp"
    assert april.drift > march.drift > 1
    assert not april.passed
    assert april.kept == april.static != april.candidate
    story.tell(iter(chapters))
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3
    assert "REFUSED" in told[2]


def test_a_recount_of_the_reference_is_the_reference() -> None:
    rng = np.random.default_rng(5)
    number = np.where(rng.random(900) < 0.1, np.nan, rng.normal(size=900))
    category = rng.choice(np.array([*"abcdefghijklmnopqrstuvwxyz", None], object), 900)
    inputs = {"number": number, "category": category}
    for name, histogram in reference_histograms(reference_profile(inputs, number)).items():
        counts = recount(histogram, inputs[name])
        assert counts.tolist() == histogram.counts
        assert counts.sum() == 900
        assert story.psi(counts, counts) == 0
        shifted = np.roll(counts, 1)
        assert story.psi(counts, shifted) > 0
