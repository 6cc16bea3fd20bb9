"""The year of flights in a folder of the session's own: made once, used by every test here."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from assets.flights import data, features


@pytest.fixture(scope="session", autouse=True)
def fleet_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("fleet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNWAY_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def year(fleet_home: Path) -> pa.Table:
    return data.flights()


@pytest.fixture(scope="session")
def year_features(year: pa.Table) -> pa.Table:
    return features.features()
