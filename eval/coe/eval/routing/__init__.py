"""The command `coe eval routing`: fits on one part of an outcome table, decides the rest, and reports the gain."""
