"""Something that does not import."""

raise ImportError("no module of the name 'something_else'")
