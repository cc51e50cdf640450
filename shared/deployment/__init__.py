"""What deploy.sh does, step by step. No part of the deployed function."""
