"""A plugin for ddpmctl, for its tests."""
