"""What the core has decided and the edge has not carried out yet. Pure."""

import msgspec

from broker.commands import Command, Reply, Say, Send
from broker.peers import Peers
from common.errors import INTERNAL_TEXT, Code, WireError
from common.messages import Completed, Message, OutputResult, Released

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
"""Levels of the logging module, which pure modules do not import."""


class Outbox:
    """Commands in the order in which they were decided; then the messages, those of one peer together, in order."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._commands: list[Command] = []
        self._sends: dict[bytes, Send] = {}

    def __bool__(self) -> bool:
        return bool(self._commands or self._sends)

    def put(self, command: Command) -> None:
        """Any command that sends nothing to a linked peer."""
        self._commands.append(command)

    def reply(self, identity: bytes, message: Message) -> None:
        """The answer to a question that came without a link."""
        self._commands.append(Reply(identity, message))

    def send(self, identity: bytes, message: Message) -> None:
        """A message to a peer."""
        send = self._sends.get(identity)
        if send is None:
            self._sends[identity] = Send(identity, [message], [])
        else:
            send.messages.append(message)

    def answer(self, identity: bytes, answer: Completed, frames: tuple[bytes, ...]) -> None:
        """An answer to a frontend, with the frames that its outputs name by their places in `frames`, from 1 on."""
        if not frames:
            self.send(identity, answer)
            return
        send = self._sends.get(identity)
        if send is None:
            send = self._sends[identity] = Send(identity, [], [])
        send.messages.append(_renumber(answer, frames, send.frames))

    def to_frontend(self, name: str, message: Message) -> None:
        """A message to a frontend, if it is linked."""
        frontend = self._peers.frontends.get(name)
        if frontend is not None:
            self.send(frontend.identity, message)

    def release(self, frontend: str, id_: int) -> None:
        """Tell a frontend that nothing can write to this request's block any more."""
        self.to_frontend(frontend, Released(id_))

    def say(self, level: int, text: str) -> None:
        """A line of the log."""
        self._commands.append(Say(level, text))

    def take(self) -> list[Command]:
        """Everything since the last call. Messages come last: what they say must be written down by then."""
        taken: list[Command] = self._commands
        self._commands = []
        if self._sends:
            taken.extend(self._sends.values())
            self._sends = {}
        return taken


def _renumber(answer: Completed, brought: tuple[bytes, ...], frames: list[bytes]) -> Completed:
    """The answer with its frames at the end of `frames`. Frame 0 of the ZeroMQ message is the envelope."""
    if any(output.frame > len(brought) for output in answer.outputs):
        # A worker that counts wrongly costs its own request, not the broker.
        return Completed(answer.id, (), WireError(Code.INTERNAL, INTERNAL_TEXT))
    outputs = []
    for output in answer.outputs:
        if output.frame < 1:
            outputs.append(output)
            continue
        frames.append(brought[output.frame - 1])
        outputs.append(OutputResult(output.shape, len(frames)))
    return msgspec.structs.replace(answer, outputs=tuple(outputs))
