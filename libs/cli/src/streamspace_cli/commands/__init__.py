"""The commands, a module for each group: parse, ask, print."""
