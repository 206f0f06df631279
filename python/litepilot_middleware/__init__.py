"""The former names of the middlewares, which are in `litepilot` now."""
