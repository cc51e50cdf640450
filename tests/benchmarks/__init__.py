"""What speed costs and gains, side by side: see README.md."""
