"""What happens to an invocation: who asks for work, and the way from an open invocation to recorded results."""
