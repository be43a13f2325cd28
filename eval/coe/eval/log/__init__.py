"""The command `coe eval log`: reads the decision log in columns and reports on production traffic."""
