"""One module per subcommand: parse, call, render. None imports torch at module level."""
