"""Tests: the behaviour a user relies on, and the numbers of the published release (see `tests/parity/`)."""
