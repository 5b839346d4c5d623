#!/usr/bin/env bash
# Installs the clients that test/compat runs against keyrow, where they are missing.
set -euo pipefail

# compat_missing prints the Debian packages that are missing, separated by blanks.
compat_missing() {
  { python3 -c 'import redis, hiredis' || /usr/bin/python3 -c 'import redis, hiredis'; } >/dev/null 2>&1 ||
    printf 'python3-redis python3-hiredis '
  command -v node >/dev/null || printf 'nodejs '
  command -v npm >/dev/null || printf 'npm '
}

# compat_install installs them, which takes root or sudo.
compat_install() {
  local packages sudo='' try
  packages=$(compat_missing)
  [ -n "$packages" ] || return 0
  [ "$(id -u)" = 0 ] || sudo=sudo
  for try in 1 2 3 4; do
    # shellcheck disable=SC2086 # several packages, each a word
    if $sudo apt-get -q update && $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends $packages; then
      break
    fi
    sleep $((try * 5))
  done </dev/null
  packages=$(compat_missing)
  [ -z "$packages" ] || {
    printf 'test/compat: could not install %s\n' "$packages" >&2
    return 1
  }
}

[ "${BASH_SOURCE[0]}" != "$0" ] || compat_install
