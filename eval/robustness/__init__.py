"""Stability: does a decision survive changes of a text that do not change what is asked?"""
