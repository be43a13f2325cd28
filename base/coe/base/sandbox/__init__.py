"""A sandbox for code that a model wrote. Begin with `runner.run_tests`, which says what is guarded and what is not."""
