#!/usr/bin/env bash
# Puts Debian's Chromium on the machine, in which tests open reports and draw dashboards. As root. Safe to repeat.
set -euo pipefail
command -v chromium >/dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "install-chromium: chromium is missing; install it (Debian, as root: apt-get install chromium)" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
install=(timeout 900 apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends chromium)
"${install[@]}" >/dev/null 2>&1 || { timeout 600 apt-get -o DPkg::Lock::Timeout=300 update -qq && "${install[@]}" >/dev/null; }
