"""Settings of all tests."""

from hypothesis import settings

# A busy machine is slow, not wrong: no test here asserts time.
settings.register_profile("runway", deadline=None)
settings.load_profile("runway")
