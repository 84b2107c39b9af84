"""The main job: trains a Llama on documents of wildly different lengths, planned anew each step.

`hetsp train` is cli/train.py; docs/training.md shows the same loop in thirty lines for a model of one's own.
"""
