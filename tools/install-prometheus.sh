#!/usr/bin/env bash
# Puts Debian's prometheus and promtool into .build/bin without installing a service. Safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.build/bin
[ -x "$bin/promtool" ] && [ -x "$bin/prometheus" ] && exit 0
command -v apt-get >/dev/null || { echo "install-prometheus: needs apt-get, or prometheus and promtool on the PATH" >&2; exit 1; }
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
(cd "$folder" && { apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; }; } && dpkg-deb -x prometheus_*.deb .)
mkdir -p "$bin"
install -m 755 "$folder/usr/bin/promtool" "$folder/usr/bin/prometheus" "$bin/"
