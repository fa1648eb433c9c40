# tvmcompress with the compilers and emulators of all targets.
#
#   docker build -t tvmcompress .
#   docker run --rm -v "$PWD:/work" tvmcompress compress model.onnx --calib data.npz --quantize int8 --target cortex-m4 -o out/
FROM debian:bookworm-slim

WORKDIR /opt/tvmcompress
COPY LICENSE README.md pyproject.toml ./
COPY scripts/setup.sh scripts/
COPY tvmcompress tvmcompress
COPY passes passes
COPY targets targets
COPY tuning_logs tuning_logs

# Extras to install: train brings PyTorch, which is large.
ARG EXTRAS=[report,tflite,serial,rpc,search]
RUN scripts/setup.sh .venv ".${EXTRAS}" \
    && .venv/bin/tvmcompress targets \
    && rm -rf /var/lib/apt/lists/* "$HOME/.cache"

ENV PATH=/opt/tvmcompress/.venv/bin:$PATH
WORKDIR /work
ENTRYPOINT ["tvmcompress"]
CMD ["--help"]
