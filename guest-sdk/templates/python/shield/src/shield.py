"""The streaming side: one session for each channel of a reply. The tool chain looks for it in a module of this name."""

from wit_world.exports import shield
from wit_world.exports.shield import Edit, Ruling
from wit_world.imports.types import Channel, Message

import app


class Session(shield.Session):
    def __init__(self, channel: Channel, conversation: list[Message]):
        self.text = ""  # what is not decided yet
        self.base = 0  # its offset in the channel, in bytes

    async def feed(self, text: str) -> Ruling:
        self.text += text
        return self.rule(complete=False)

    async def finish(self) -> Ruling:
        return self.rule(complete=True)

    def rule(self, complete: bool) -> Ruling:
        # From `limit` on the text may be the beginning of a word; whatever begins before it has come whole.
        limit = len(self.text) if complete else app.undecided(self.text)
        edits, at = [], 0
        for match in app.find(self.text):
            if match.start() < limit:
                edits.append(Edit(self.offset(match.start()), self.offset(match.end()), "***"))
                at = match.end()
        at = max(at, limit)
        self.base, self.text = self.offset(at), self.text[at:]
        return Ruling(cleared=self.base, edits=edits, violation=None)

    def offset(self, at: int) -> int:
        """Bytes from the channel's start."""
        return self.base + len(self.text[:at].encode())
