"""One thin module a subcommand: parse, call, render. None imports torch at its top."""
