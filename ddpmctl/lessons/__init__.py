"""The three lessons that this tool grew from: each trap trained beside its fix, looked at, and written down."""
