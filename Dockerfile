# For any host that runs containers: ./deploy.sh --target container builds it from the staged folder, in which
# requirements.txt is requirements.lock and main.py imports the function's target.
FROM python:3.11-slim

WORKDIR /srv/function
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt
COPY . .
# Compiled once, since the user below may not write here.
RUN python -m compileall -q . && useradd --system --no-create-home --shell /usr/sbin/nologin scheduler
USER scheduler

ENV PORT=8080
EXPOSE 8080
# Functions-framework reads PORT. One worker: more are more containers, as many as MAX_WORKERS asks for.
CMD ["functions-framework", "--target", "handle_scheduled_invocation", "--asgi"]
