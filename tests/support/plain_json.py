"""JSON, read a character at a time: slow, and by nothing but its grammar."""

from __future__ import annotations

import re
from typing import Any, NoReturn

_SPACE = " \t\n\r"
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
HEX = "0123456789abcdefABCDEF"
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class Refusal(Exception):
    """The event can never become an order; the text is the reason."""


def document(text: str) -> Any:
    """The one value in a text; no object in it names a key twice.

    Raises:
        Refusal: it holds none; the text is ``json``, or ``duplicate_key``.
        RecursionError: it nests too deep for this reader.
    """
    return _Reader(text).document()


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
        if any(digit not in HEX for digit in digits):
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
