"""Where the ranks of a run meet, as torchrun does it: a store of the process that starts them.

A rank that opens the store itself needs a port that was free a moment ago, and any connection of the machine may have taken it
since. This store's port is bound before a rank knows of it.
"""

import torch.distributed as dist


def open_meeting() -> tuple[dist.TCPStore, dict[str, str]]:
    """A store on a port of its own, to be kept while the ranks run, and what a rank's environment needs to find it."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return store, {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # every rank is a client, rank 0 too
    }
