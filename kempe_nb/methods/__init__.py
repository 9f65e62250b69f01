"""Algorithms that two chapters share, or that are too long for a page."""
