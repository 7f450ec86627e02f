"""Regions in which nodes run."""
