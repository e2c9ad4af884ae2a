#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what Orrery builds with (Debian 12, root or sudo) and builds it. Sourced by nothing; run by demo.sh and
# test.sh. Usage: deploy/bootstrap.sh [build|test]: `test` adds what only the tests need.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-build}
need=(gcc cmake ninja-build pkg-config openmpi-bin libopenmpi-dev libyaml-dev libjansson-dev
      libcurl4-openssl-dev libssl-dev libexpat1-dev libpng-dev libjpeg-dev libsndfile1-dev libchipmunk-dev libncurses-dev)
if [ "$what" = test ]; then
  need+=(libcmocka-dev g++ clang clang-format clang-tidy cppcheck universal-ctags libclang-rt-14-dev gcovr
         python3 procps iproute2 util-linux openssl radosgw ceph-mon ceph-osd
         libavformat-dev libavcodec-dev libswscale-dev libavutil-dev
         gdb gdbserver tmux slurmctld slurmd slurm-client munge python3-yaml)
fi

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else echo "bootstrap: error: need root or sudo to install: ${missing[*]}" >&2; exit 77
  fi
}

missing=()
for package in "${need[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || { echo "bootstrap: error: not a Debian system; install: ${missing[*]}" >&2; exit 69; }
  echo "bootstrap: installing ${missing[*]}" >&2
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
