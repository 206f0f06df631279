"""What several tests need."""

import pytest
from hypothesis import settings

# No directory for what failed before: the failure says how to repeat it. No limit in time: the
# machine has much else to do.
settings.register_profile("litepilot", database=None, deadline=None)
settings.load_profile("litepilot")


@pytest.fixture
def settings_of():
    """Changes Django's settings until the test is over."""
    from django.test import override_settings

    import tests.guestbook  # noqa: F401

    overridden = []

    def change(**settings):
        overridden.append(override_settings(**settings))
        overridden[-1].enable()

    yield change
    for override in reversed(overridden):
        override.disable()
