#!/usr/bin/env bash
# Builds helm from its Go module into .build/bin. Does nothing if this version is there.
set -euo pipefail
cd "$(dirname "$0")/.."
HELM_VERSION=v3.22.0
KUBERNETES_MINOR=37
bin=$PWD/.build/bin
stamp=$PWD/.build/helm.stamp
[[ -x $bin/helm && $(cat "$stamp" 2>/dev/null) == "$HELM_VERSION $KUBERNETES_MINOR" ]] && exit 0
if ! command -v go >/dev/null; then
    echo "install-helm: no Go found. Install Go 1.26 or newer (https://go.dev/doc/install), or put helm on the PATH." >&2
    exit 1
fi
mkdir -p "$bin"
# As helm's own Makefile does: without these it takes every cluster it cannot ask for a Kubernetes 1.20.
packages=helm.sh/helm/v3
flags="-s -w -X $packages/internal/version.version=$HELM_VERSION"
for package in pkg/lint/rules pkg/chartutil; do
    flags="$flags -X $packages/$package.k8sVersionMajor=1 -X $packages/$package.k8sVersionMinor=$KUBERNETES_MINOR"
done
# Outside of any module, or this repository's Go modules would be asked for helm's.
(cd / && CGO_ENABLED=0 GOBIN=$bin go install -trimpath -ldflags "$flags" "helm.sh/helm/v3/cmd/helm@$HELM_VERSION")
echo "$HELM_VERSION $KUBERNETES_MINOR" > "$stamp"
