"""The fit of strategies: which two experts to ask first, and which arbiter decides if they differ."""
