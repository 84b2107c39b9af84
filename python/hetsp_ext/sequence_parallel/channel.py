"""Point-to-point messages of one process group: the one channel that all rings of a step share.

Messages between two ranks arrive in the order in which both posted them; the schedule's proof
(csrc/hetsp/sequence_parallel/schedule_check.h) rests on nothing else. No group is made per degree, ring or pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from ..errors import PeerLost


@dataclass(frozen=True)
class Message:
    """`tensor` goes to (send) or comes from (not send) rank `peer` of the group."""

    send: bool
    tensor: torch.Tensor
    peer: int


class Posted:
    """Messages on their way. Holds their buffers until wait() returns; wait() may be called again."""

    def __init__(self, works: Sequence[dist.Work], messages: Sequence[Message]) -> None:
        self._pending = list(zip(works, messages, strict=False))
        self._messages: Sequence[Message] = messages
        self._coalesced = len(works) != len(messages)

    def wait(self) -> None:
        """Returns when every message is complete; raises PeerLost naming the rank whose message failed."""
        for work, message in self._pending:
            try:
                work.wait()
            except RuntimeError as error:
                peers = sorted({m.peer for m in self._messages}) if self._coalesced else [message.peer]
                verb = "sending to" if message.send else "receiving from"
                names = " or ".join(f"rank {peer}" for peer in peers)
                raise PeerLost(f"{names} was lost while {verb} it: {str(error).splitlines()[0]}") from error
        self._pending, self._messages = [], ()  # the buffers may go


class Channel:
    """Posts batches of messages on `group` (None: the default group); ranks are ranks of that group."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self._group = group if group is not None or not dist.is_initialized() else dist.group.WORLD

    def post(self, messages: Sequence[Message]) -> Posted:
        assert self._group is not None, "a step of one rank has no messages"
        operations = []
        for message in messages:
            operation = dist.isend if message.send else dist.irecv
            peer = dist.get_global_rank(self._group, message.peer)
            operations.append(dist.P2POp(operation, message.tensor, peer, self._group))
        try:
            works = dist.batch_isend_irecv(operations)
        except RuntimeError as error:
            peers = ", ".join(str(message.peer) for message in messages)
            raise PeerLost(f"posting messages with rank {peers} failed: {str(error).splitlines()[0]}") from error
        return Posted(works, messages)
