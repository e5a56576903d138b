"""Frames, and a folder for what is decoded of them."""

from pathlib import Path

import pytest

from tests.caches.test_caching import note_down_decoded
from tests.caches.test_packed import write_frames


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Frames as `write_frames` writes them."""
    return write_frames(tmp_path / "frames")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder for caches, which does not exist yet."""
    return tmp_path / "caches" / "of all runs"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are decoded from now on, in no certain order."""
    return note_down_decoded(monkeypatch)
