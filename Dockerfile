# The daemon needs no tool at run time but, for backups, the PostgreSQL client; so Debian slim, not scratch.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -ldflags "-s -w -X main.version=${VERSION}" -o /reconciler ./cmd/reconciler

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates postgresql-client \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /reconciler /usr/local/bin/reconciler
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/reconciler"]
CMD ["run"]
