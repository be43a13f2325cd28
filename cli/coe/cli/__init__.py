"""The `coe` command. It finds the sub-commands of all packages by name, and imports one only when it is called."""
