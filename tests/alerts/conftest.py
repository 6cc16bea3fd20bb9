"""The worlds of the contract tests, here too."""

from tests.contract.conftest import postgres, postgres_world, world

__all__ = ["postgres", "postgres_world", "world"]
