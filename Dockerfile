# The image of keyrow: one static program, no shell, no root.
#
#   docker build --build-arg VERSION=v1.2.3 -t keyrow .
#   docker run -v ./conf.toml:/etc/keyrow/conf.toml:ro -p 6380:6380 keyrow
#
# /etc/keyrow/conf.toml   the configuration, readable for user 65532. In a container proxy.listen is ":6380": 127.0.0.1 is
#                         reached from inside alone.
# 6380                    clients
# 9121                    metrics and the status page, if admin.listen is ":9121" (with admin.token); /readyz is asked from
#                         inside by the health check
#
# It writes no files. On SIGTERM it drains, for as long as journal.drain: give it that time (docker stop -t 40).
# docs/operations.md says more, and docs/compose.yml puts it between a Redis and a MySQL.

ARG GO_IMAGE=golang:1.26
FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN ["go", "mod", "download"]
COPY . .
ARG VERSION=dev
# As "Building" in docs/operations.md has it, so that the program is the same to the byte.
ENV CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false '-ldflags=-s -w -X main.version=${VERSION}'"
RUN ["go", "build", "-o", "/keyrow", "."]

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /keyrow /keyrow
USER 65532:65532
EXPOSE 6380 9121
HEALTHCHECK --interval=10s --timeout=6s --start-period=1m CMD ["/keyrow", "health", "-c", "/etc/keyrow/conf.toml"]
ENTRYPOINT ["/keyrow"]
CMD ["-c", "/etc/keyrow/conf.toml"]
