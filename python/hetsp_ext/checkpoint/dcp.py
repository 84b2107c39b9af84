"""Plugs for torch.distributed.checkpoint: `dcp.save`, `dcp.async_save` and `dcp.load` through the engine.

writer = HetspStorageWriter(path)
dcp.save(state, storage_writer=writer)
dcp.async_save(state, storage_writer=writer)  # the writer stages, too
dcp.load(state, storage_reader=HetspStorageReader(path))
"""

from ._dcp_read import HetspStorageReader
from ._dcp_write import HetspStorageWriter

__all__ = ["HetspStorageReader", "HetspStorageWriter"]
