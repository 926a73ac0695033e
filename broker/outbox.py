"""What the core has decided and the edge has not carried out yet. Pure."""

from broker.commands import Command, Say, Send
from broker.peers import Peers
from common.messages import Message, Released

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
"""Levels of the logging module, which pure modules do not import."""


class Outbox:
    """Commands in the order in which they were decided."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._commands: list[Command] = []

    def __bool__(self) -> bool:
        return bool(self._commands)

    def put(self, command: Command) -> None:
        """Any command."""
        self._commands.append(command)

    def send(self, identity: bytes, message: Message, frames: tuple[bytes, ...] = ()) -> None:
        """A message to a peer."""
        self._commands.append(Send(identity, message, frames))

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
        """Everything since the last call."""
        taken, self._commands = self._commands, []
        return taken
