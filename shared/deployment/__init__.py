"""What deploy.sh leaves to Python: settings, checks over HTTP, new tokens. No part of the deployed function."""
