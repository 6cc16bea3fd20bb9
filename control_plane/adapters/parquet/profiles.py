"""Reference profiles on disk, one file per content; see `profile_format` for what is in one."""

from pathlib import Path

from control_plane.adapters.parquet.profile import Profile
from control_plane.adapters.parquet.profile_format import parse_profile
from control_plane.adapters.parquet.segments import write_durably
from control_plane.core.errors import Invalid, Reason, Violation

CACHED_PROFILES_MAX = 4_096
"""Parsed profiles kept in memory: eight versions of each of 500 models."""


class ProfileStore:
    """Profiles on disk, one file per content."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._parsed: dict[str, Profile] = {}

    def put(self, text: bytes) -> str:
        """Check and store a profile durably; returns its sha256. The same content again changes nothing."""
        profile = parse_profile(text)
        path = self._path(profile.digest)
        if not path.exists():
            write_durably(path, text)
        self._keep(profile)
        return profile.digest

    def text(self, digest: str) -> bytes | None:
        """The JSON as it was put; None if there is none."""
        path = self._path(digest)
        return path.read_bytes() if path.exists() else None

    def get(self, digest: str) -> Profile | None:
        """The parsed profile; None if there is none."""
        known = self._parsed.get(digest)
        if known is not None:
            return known
        text = self.text(digest)
        if text is None:
            return None
        profile = parse_profile(text)
        self._keep(profile)
        return profile

    def _keep(self, profile: Profile) -> None:
        while len(self._parsed) >= CACHED_PROFILES_MAX:
            self._parsed.pop(next(iter(self._parsed)))
        self._parsed[profile.digest] = profile

    def _path(self, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            violation = Violation(field="digest", rule="sha256", message="64 lower-case hex digits")
            raise Invalid(Reason.INVALID_ARGUMENT, violation)
        return self._directory / f"{digest}.json"
