"""Checkpoints that are copied while training goes on, committed as a whole, and verified when read. See docs/checkpoint.md."""
