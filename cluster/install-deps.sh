#!/usr/bin/env bash
# Install the Debian packages that a cluster's nodes run with. A second call takes milliseconds.
set -euo pipefail

packages=(containerd runc containernetworking-plugins iptables mount)

missing=()
for package in "${packages[@]}"; do
    if [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
        missing+=("$package")
    fi
done
if ((${#missing[@]} == 0)); then
    exit 0
fi
if [[ $(id -u) != 0 ]]; then
    echo "cluster/install-deps.sh: run as root, to install ${missing[*]}" >&2
    exit 1
fi

echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# Another package manager may be at work: wait for it, but not for ever.
wait_for_lock=(-o DPkg::Lock::Timeout=300)
timeout 600 apt-get "${wait_for_lock[@]}" -qq update
timeout 900 apt-get "${wait_for_lock[@]}" -qq -y --no-install-recommends install "${missing[@]}" >/dev/null
