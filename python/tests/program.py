"""The program, for tests that want to know what it makes of what is written for it."""

import os

import pytest

BINARY = os.environ.get("LITEPILOT_BIN")


def required() -> str:
    """Its path; without it the test is skipped, which `LITEPILOT_REQUIRE_ALL` forbids."""
    if BINARY is None:
        if os.environ.get("LITEPILOT_REQUIRE_ALL"):
            pytest.fail("nothing may be skipped: LITEPILOT_BIN names no program")
        pytest.skip("LITEPILOT_BIN names no program")
    return BINARY
