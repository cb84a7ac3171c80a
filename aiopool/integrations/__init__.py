"""aiopool in other packages: one module for each, with an extra of its own. Nothing here is imported by the rest."""
