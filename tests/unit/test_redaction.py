"""No command and no setting shows a password, wherever it was put by mistake."""

from __future__ import annotations

import pytest

from flashsale import exit_codes
from flashsale.cli import cli, exits
from flashsale.errors import SettingsError
from flashsale.redaction import without_credentials
from flashsale.settings import Settings


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Got 'amqp://u:canary@h/v'", "Got 'amqp://***@h/v'"),
        ("not 'postgresql://u:can ary\"canary@canary@h/x'", "not 'postgresql://***@h/x'"),
        ("see https://example.com/ or mail a@b.c", "see https://***@b.c"),
        ("x@y is no URL\nnor is a://b", "x@y is no URL\nnor is a://b"),
    ],
)
def test_credentials_are_taken_out_of_a_text(text: str, left: str) -> None:
    """Too much is taken rather than too little."""
    assert without_credentials(text) == left


MISPLACED = ["amqp://u:canary@h/v", "postgresql://u:can ary'canary\"@h/x?a=b", "x://canary@"]


@pytest.mark.parametrize("url", MISPLACED)
@pytest.mark.parametrize(
    "arguments", [[], ["migrate"], ["topology"], ["publish", "--sale"], ["publish", "--count"]]
)
def test_a_command_does_not_quote_a_url_it_was_given_by_mistake(
    arguments: list[str], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """click quotes what it does not understand."""
    assert exits.run(cli, [*arguments, url]) == exit_codes.USAGE
    shown = capsys.readouterr()
    assert shown.err
    assert "canary" not in shown.out + shown.err


@pytest.mark.parametrize("url", ["x://u:canary@h", "x://u:can ary'canary\"@h/x?a=b", "x://canary@"])
@pytest.mark.parametrize(
    "name",
    [
        *("DATABASE_URL", "RABBITMQ_URL", "PURCHASE_QUEUE", "DEAD_LETTER_QUEUE"),
        *("PURCHASE_QUEUE_TYPE", "FLASHSALE_BATCH_SIZE", "FLASHSALE_LOG_LEVEL"),
    ],
)
def test_a_setting_that_holds_another_s_url_is_refused_without_it(name: str, url: str) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        Settings.from_env({name: url})
    assert "canary" not in str(caught.value)
