"""The `coe` command, which finds those of all distributions by name. Imports none of them before it is called."""
