"""Masks the words of a list, in conversations and in streams.

The host makes a fresh instance for every call. Configuration is the `config` object of the binding:
`{"words": ["darn"]}`.
"""

import json
import re

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import config
from wit_world.imports.types import Error_Invalid, Message, Part_Text, Verdict, Verdict_Edit, Verdict_Pass


def words() -> list[str]:
    found = json.loads(config.get()).get("words", [])
    if not isinstance(found, list) or not all(isinstance(word, str) and word for word in found):
        raise Err(Error_Invalid("config: words is a list of texts that are not empty"))
    return found


def find(text: str) -> list[re.Match]:
    """All words in the text, in order. Of two that begin together, the longer one."""
    longest_first = sorted(words(), key=len, reverse=True)
    if not longest_first:
        return []
    return list(re.finditer("|".join(map(re.escape, longest_first)), text))


def undecided(text: str) -> int:
    """Where the first word begins that the text's end may cut short; the text's end where there is none."""
    cut_short = lambda at: any(len(word) > len(text) - at and word.startswith(text[at:]) for word in words())
    return next(filter(cut_short, range(len(text))), len(text))


class Shield(exports.Shield):
    def hold_back(self) -> int:
        """Most bytes that a session keeps back: a word that has not come whole yet."""
        return max((len(word.encode()) for word in words()), default=0)

    async def check(self, direction, messages: list[Message]) -> Verdict:
        edited = False
        for message in messages:
            for i, part in enumerate(message.parts):
                if isinstance(part, Part_Text) and find(part.value):
                    message.parts[i] = Part_Text(mask(part.value))
                    edited = True
        return Verdict_Edit(messages) if edited else Verdict_Pass()


def mask(text: str) -> str:
    for match in reversed(find(text)):
        text = text[: match.start()] + "***" + text[match.end() :]
    return text
