"""What is measured: predictions in stars, and rankings of target items."""
