"""What the sweep of the settings measures."""

from __future__ import annotations

import pytest

from benchmarks.sweep import _DEFAULTS, _SWEPT
from flashsale.settings import Settings


@pytest.mark.parametrize("setting", _SWEPT)
def test_of_each_setting_the_default_is_among_the_values(setting: str) -> None:
    assert _DEFAULTS[setting] in _SWEPT[setting]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (setting, value)
        for setting, values in _SWEPT.items()
        if setting.startswith("FLASHSALE_")
        for value in values
    ],
)
def test_with_each_value_alone_a_worker_starts(setting: str, value: int) -> None:
    """All others have their defaults, which it may contradict."""
    Settings.from_env({setting: str(value)})
