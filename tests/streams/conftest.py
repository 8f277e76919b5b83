"""What the tests of streams share."""

from tests.streams.working import bundle, make_fleet  # noqa: F401
