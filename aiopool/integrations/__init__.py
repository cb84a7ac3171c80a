"""One module for each server, client or metrics system. Nothing else in aiopool imports them.

Each needs the package that it is named after, which the extra of the same name installs, and checks at import that it
supports the installed version.
"""
