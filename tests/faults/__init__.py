"""What breaks, on the real stack: nothing is lost, nothing happens twice."""
