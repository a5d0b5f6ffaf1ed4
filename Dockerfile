# Server of a model: docker build -t cdetr . && docker run -p 8000:8000 -v /path/to/model:/model:ro cdetr
# For a GPU: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128, and docker run --gpus all.
FROM python:3.11-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /build
RUN python -m venv /opt/cdetr
COPY constraints.txt .
RUN /opt/cdetr/bin/pip install --no-cache-dir --constraint constraints.txt --extra-index-url "$TORCH_INDEX" torch
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/cdetr/bin/pip install --no-cache-dir --constraint constraints.txt '.[serve,onnx,openvino]'

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 cdetr
COPY --from=build /opt/cdetr /opt/cdetr
ENV PATH=/opt/cdetr/bin:$PATH PYTHONUNBUFFERED=1
USER cdetr
VOLUME /model
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=10s CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=3)"
# SIGTERM, which docker stop sends, lets the requests in flight be answered first.
STOPSIGNAL SIGTERM
ENTRYPOINT ["cdetr", "serve", "/model", "--host", "0.0.0.0", "--log-format", "json"]
