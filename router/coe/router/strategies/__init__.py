"""Asking more than one expert: whose answers are the same, and whose answer to serve. Pure. Begin with `agree.py`: it
is told the replies so far, and says whether another expert is needed and whose reply is served."""
