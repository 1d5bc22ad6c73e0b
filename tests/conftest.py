"""Hypothesis profiles: bounded and repeatable every day, long in campaigns (`--hypothesis-profile=long`)."""

from hypothesis import HealthCheck, settings

settings.register_profile("everyday", derandomize=True, max_examples=60, deadline=None, database=None, print_blob=False)
settings.register_profile(
    "long", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("everyday")
