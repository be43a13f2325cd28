"""Fits what a strategy knows: how much an expert's vote weighs, and when asking on gains more than it costs."""
