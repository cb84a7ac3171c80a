"""One module for each server, client or metrics system. None is imported by anything else in aiopool.

Each needs the package it is named after, which the extra of the same name installs, and checks at import that it knows
the version it finds.
"""
