"""Loads the plugin by name."""

pytest_plugins = ["pytest_aiopool"]
