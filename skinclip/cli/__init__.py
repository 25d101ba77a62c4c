"""The command line: `main` parses and dispatches, with one module for each group of subcommands."""
