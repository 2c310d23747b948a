"""Three lessons: each trap is trained beside its fix, measured, and shown on one page."""
