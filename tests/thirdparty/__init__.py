"""Other projects' attention tests, run from a checkout that the user names, on hetsp_ext: python -m tests.thirdparty.

No line of theirs is kept here. An adapter says what it changes in a copy of their test, and why; all else runs as they wrote
it.
"""
