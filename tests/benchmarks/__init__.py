"""Measurements, run by hand and never by the suite: each module says its command."""
