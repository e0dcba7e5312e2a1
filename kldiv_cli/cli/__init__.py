"""The command line, one thin module a command: parse, call, hand the record to the report."""
