#!/usr/bin/env bash
# Build fanfold-cluster (and the pause program of its pods) into .build/bin at the root of the repository.
# Does nothing when no source has changed. From nothing it compiles some 2,800 packages: 6 minutes of two cores.
set -euo pipefail

KUBERNETES_VERSION=v1.37.2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(dirname "$here")/.build
bin=$out/bin
stamp=$out/fanfold-cluster.stamp
log=$out/fanfold-cluster.build.log
report_seconds=15

cd "$here"
mkdir -p "$bin"

if ! command -v go >/dev/null; then
    echo "cluster/build.sh: no Go found. Install Go 1.26 or newer (https://go.dev/doc/install)." >&2
    exit 1
fi

# Two builds at once would only share the cores: the second waits, then finds nothing left to do.
exec 9>"$out/fanfold-cluster.lock"
if ! flock --timeout 3600 9; then
    echo "cluster/build.sh: another build has held $out/fanfold-cluster.lock for an hour." >&2
    exit 1
fi

fingerprint() {
    { go env GOVERSION GOARCH; find build.sh go.mod go.sum cmd internal -type f ! -name '*_test.go' ! -path 'cmd/fanfold-probe/*' -print0 \
        | sort -z | xargs -0 sha256sum; } | sha256sum | cut -d' ' -f1
}

wanted=$(fingerprint)
if [[ -x $bin/fanfold-cluster && -x $bin/fanfold-pause && -L $bin/kubectl && $(cat "$stamp" 2>/dev/null) == "$wanted" ]]; then
    echo "fanfold-cluster is up to date"
    exit 0
fi

export CGO_ENABLED=0
build() { go build -buildvcs=false -trimpath "$@"; }

echo "building fanfold-cluster (output in $log)"
started=$SECONDS
build -v -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$KUBERNETES_VERSION" \
    -o "$bin/.fanfold-cluster.new" ./cmd/fanfold-cluster >"$log" 2>&1 9>&- &
compiler=$!
trap 'kill "$compiler" 2>/dev/null || true' EXIT
next=$report_seconds
while kill -0 "$compiler" 2>/dev/null; do
    sleep 1
    if ((SECONDS - started >= next)); then
        echo "  $((SECONDS - started)) s: $(grep -c '^[a-z]' "$log" || true) packages compiled"
        next=$((next + report_seconds))
    fi
done
if ! wait "$compiler"; then
    tail -n 20 "$log" >&2
    echo "cluster/build.sh: the build failed: read $log" >&2
    exit 1
fi
trap - EXIT
build -ldflags "-s -w" -o "$bin/.fanfold-pause.new" ./cmd/fanfold-pause

# Renamed into place: a running cluster keeps the old binary, and an interrupted build leaves none half-written.
mv "$bin/.fanfold-cluster.new" "$bin/fanfold-cluster"
mv "$bin/.fanfold-pause.new" "$bin/fanfold-pause"
ln -sfn fanfold-cluster "$bin/kubectl"
echo "$wanted" >"$stamp"
echo "built $bin/fanfold-cluster in $((SECONDS - started)) s"
