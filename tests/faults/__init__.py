"""Whatever may break a run, a disk or a file, tried on purpose: see `__main__`."""
