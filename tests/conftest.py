"""For all tests."""

from hypothesis import settings

settings.register_profile("deep", max_examples=2000)
