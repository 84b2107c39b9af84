"""Fixtures of the checkpoint tests."""

import pytest

from tests.python.checkpoint.held import Setting


@pytest.fixture
def settings():
    made = []

    def make(*args, **kwargs):
        made.append(Setting(*args, **kwargs))
        return made[-1]

    yield make
    for setting in made:
        setting.end()
