#!/usr/bin/env bash
# Format, vet and unit tests of the cluster's Go code. Needs neither root nor a running cluster; uses the build's cache.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

unformatted=$(gofmt -l cmd internal)
if [[ -n $unformatted ]]; then
    echo "cluster/test.sh: run gofmt -w on: $unformatted" >&2
    exit 1
fi

export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath"
# Not internal/components and what imports it: vet would first read all of Kubernetes.
mapfile -t packages < <(go list ./internal/... ./cmd/fanfold-pause ./cmd/fanfold-probe | grep -v /internal/components$)
go vet "${packages[@]}"
go test -vet=off "${packages[@]}" | { grep -v "no test files" || true; }
