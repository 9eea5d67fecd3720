"""The contract suite lies in a package: its asserts are to speak as those of tests do."""

import pytest

pytest.register_assert_rewrite("sinks.testing", "sinks.testing_changes")
