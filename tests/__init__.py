"""All tests; a package so that they can share helpers: from tests.architecture.tree import ..."""
