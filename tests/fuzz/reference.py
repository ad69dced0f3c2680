"""The rules of an event once more, plainly: slow, and with nothing taken from what it is to check.

It reads JSON by itself, a character at a time, and refuses at the first fault as the decoder does.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, NoReturn

_SPACE = " \t\n\r"
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX = "0123456789abcdefABCDEF"
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class Refusal(Exception):
    """The event can never become an order; the text is the reason."""


class Event(NamedTuple):
    sale_id: str
    user_id: str
    timestamp: str | None


def read(body: bytes, limit: int) -> Event:
    """The event in a body.

    Raises:
        Refusal: it holds none.
        RecursionError: it nests too deep for this reader.
    """
    if len(body) > limit:
        raise Refusal("too_large")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal("encoding") from None
    if text.startswith("\ufeff") or b"\0" in body[:4]:  # as in UTF-16 and UTF-32
        raise Refusal("encoding")
    document = _Reader(text).document()
    if not isinstance(document, dict):
        raise Refusal("type")
    if "saleId" not in document and isinstance(document.get("data"), dict):
        document = document["data"]
    sale_id, user_id = _id(document, "saleId"), _id(document, "userId")
    _check_sale_id(sale_id)
    _check_user_id(user_id)
    timestamp = document.get("timestamp")
    if not isinstance(timestamp, str) or any(map(_is_surrogate, timestamp)):
        timestamp = None
    return Event(sale_id.lower(), user_id, timestamp)


def _id(document: dict[str, Any], key: str) -> str:
    if document.get(key) is None:
        raise Refusal("missing")
    if not isinstance(document[key], str):
        raise Refusal("type")
    return str(document[key])


def _check_sale_id(sale_id: str) -> None:
    groups = sale_id.split("-")
    if [len(group) for group in groups] != [8, 4, 4, 4, 12]:
        raise Refusal("format")
    if any(digit not in _HEX for group in groups for digit in group):
        raise Refusal("format")


def _check_user_id(user_id: str) -> None:
    if len(user_id) > 255:
        raise Refusal("length")
    if all(character.isspace() for character in user_id):  # also where there is none
        raise Refusal("text")
    for character in user_id:
        if ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 or _is_surrogate(character):
            raise Refusal("text")


def _is_surrogate(character: str) -> bool:
    return 0xD800 <= ord(character) < 0xE000


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def document(self) -> Any:
        value = self._value()
        self._skip_space()
        if self._at != len(self._text):
            _refuse()
        return value

    def _value(self) -> Any:
        self._skip_space()
        character = self._peek()
        if character == "{":
            return self._object()
        if character == "[":
            return self._array()
        if character == '"':
            return self._string()
        for word, value in (("null", None), ("true", True), ("false", False)):
            if self._text.startswith(word, self._at):
                self._at += len(word)
                return value
        return self._number()

    def _object(self) -> dict[str, Any]:
        pairs = []
        self._take("{")
        self._skip_space()
        if self._peek() != "}":
            while True:
                self._skip_space()
                if self._peek() != '"':
                    _refuse()
                key = self._string()
                self._skip_space()
                self._take(":")
                pairs.append((key, self._value()))
                self._skip_space()
                if self._peek() != ",":
                    break
                self._take(",")
        self._take("}")
        keys = [key for key, _ in pairs]
        if any(keys.count(key) > 1 for key in keys):
            raise Refusal("duplicate_key")
        return dict(pairs)

    def _array(self) -> list[Any]:
        values: list[Any] = []
        self._take("[")
        self._skip_space()
        if self._peek() != "]":
            while True:
                values.append(self._value())
                self._skip_space()
                if self._peek() != ",":
                    break
                self._take(",")
        self._take("]")
        return values

    def _string(self) -> str:
        self._take('"')
        characters: list[str] = []
        while (character := self._next()) != '"':
            if character < " ":
                _refuse()
            if character == "\\":
                character = self._escape()
                if characters and _is_pair(characters[-1], character):
                    high, low = ord(characters.pop()), ord(character)
                    character = chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
            characters.append(character)
        return "".join(characters)

    def _escape(self) -> str:
        letter = self._next()
        if letter != "u":
            return _ESCAPES.get(letter) or _refuse()
        digits = "".join(self._next() for _ in range(4))
        if any(digit not in _HEX for digit in digits):
            _refuse()
        return chr(int(digits, 16))

    def _number(self) -> float:
        match = _NUMBER.match(self._text, self._at)
        if match is None:
            _refuse()
        self._at = match.end()
        number = float(match.group())
        if number in (float("inf"), float("-inf")):
            _refuse()
        return number

    def _skip_space(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in _SPACE:
            self._at += 1

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        if self._at == len(self._text):
            _refuse()
        self._at += 1
        return self._text[self._at - 1]

    def _take(self, character: str) -> None:
        if self._next() != character:
            _refuse()


def _is_pair(high: str, low: str) -> bool:
    return 0xD800 <= ord(high) < 0xDC00 <= ord(low) < 0xE000


def _refuse() -> NoReturn:
    raise Refusal("json")
