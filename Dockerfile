# The images of the operator and of the CSI plugin: `make images` builds both, and
# `make test-images` builds and starts them without a container engine.
#
# The bases are pinned by version. They can be given by others, e.g. from a mirror,
# with --build-arg; the Go toolchain must be one that go.mod admits.
ARG GO_IMAGE=docker.io/library/golang:1.26.8-bookworm
ARG DEBIAN_IMAGE=docker.io/library/debian:12.11-slim

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY cmd cmd
COPY config config
COPY controllers controllers
COPY csi csi
COPY rds rds
ARG VERSION=0.1.0-dev
RUN CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/ ./cmd/operator ./cmd/csi-plugin

# The operator talks to the API server, whose CA its service account brings, and to
# arrays by SSH: it needs nothing but itself.
FROM scratch AS operator
LABEL org.opencontainers.image.title="rds-csi-operator" org.opencontainers.image.source="https://git.srvlab.io/whiskey/rds-csi-operator"
COPY --from=build /out/operator /operator
USER 65532:65532
ENTRYPOINT ["/operator"]

# The plugin: its controller runs as 65532, as the Deployment says, with the binary
# alone; its Node service as root, with the programs that connect, format, check, mount
# and grow. What a node connects as comes from its name, never from the files that
# nvme-cli's installation would give all nodes alike.
FROM ${DEBIAN_IMAGE} AS csi-plugin
LABEL org.opencontainers.image.title="rds-csi-plugin" org.opencontainers.image.source="https://git.srvlab.io/whiskey/rds-csi-operator"
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends e2fsprogs kmod mount nvme-cli util-linux xfsprogs \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /etc/nvme/hostnqn /etc/nvme/hostid
COPY --from=build /out/csi-plugin /csi-plugin
ENTRYPOINT ["/csi-plugin"]
