"""What happens to an invocation: what requests work, and the way from an open invocation to recorded results."""
