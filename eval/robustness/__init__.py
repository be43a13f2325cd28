"""`coe eval robustness`: counts decisions that flip when a text changes and what is asked does not."""
