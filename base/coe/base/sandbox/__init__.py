"""Runs code that a model wrote. `runner.run_tests` is the way in; its docstring says what is guarded and what not."""
