"""What the decision log says of production traffic."""
