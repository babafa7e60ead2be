# A server of memories: docker build -t memory-server . && docker run -p 8000:8000 -e MEMLM_API_KEY=secret memory-server
FROM python:3.11-slim AS build
WORKDIR /source
COPY . .
ARG PIP_INDEX_URL
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /wheels

FROM python:3.11-slim
COPY constraints.txt /tmp/
COPY --from=build /wheels /tmp/wheels
# By default pip takes torch's build for GPUs, of several gigabytes; these say where its builds for CPUs are.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt torch \
    && pip install --no-cache-dir --constraint /tmp/constraints.txt "$(ls /tmp/wheels/*.whl)[serve]" \
    && rm -r /tmp/wheels /tmp/constraints.txt \
    && useradd --create-home memlm
USER memlm
WORKDIR /home/memlm
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=10s --timeout=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# Options that are given to docker run come after these.
ENTRYPOINT ["memlm", "serve", "--host", "0.0.0.0", "--port", "8000"]
