"""Fits what a strategy knows: which two experts to ask first, and whom where they differ."""
