"""Notebooks in, book out: execution, cache, staging and the small Sphinx extension."""
