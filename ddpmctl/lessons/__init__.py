"""Three lessons: each mistake and its fix are trained, measured, and compared on one page."""
