#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# libpeer_fa3.so builds from the checkouts that ORRERY_FLASH_ATTENTION and ORRERY_CUTLASS name (minutes), loads, and
# refuses in one line what it cannot do, a machine without a GPU among that.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
OUT=$out tests/bench/gpu/peer_fa3.sh
try() { # try TOKENS: the line that fa3_open refuses with
  python3 -c 'import ctypes, sys
peer = ctypes.CDLL(sys.argv[1], mode=2)  # RTLD_NOW: every symbol
peer.fa3_open.restype = ctypes.c_void_p
peer.fa3_forward, peer.fa3_backward
peer.fa3_close(None)
sys.exit("opened" if peer.fa3_open(1, int(sys.argv[2]), 16, 1) else 0)' "$out/libpeer_fa3.so" "$1" 2>&1
}
said=$(try 1000) || { echo "1000 tokens: $said" >&2; exit 1; }
[[ $said == *"no multiple of 256"* && $(wc -l <<<"$said") = 1 ]] || { echo "1000 tokens: $said" >&2; exit 1; }
if nvidia-smi >/dev/null 2>&1; then exit 0; fi # its results are peers.py's
said=$(try 1024) || { echo "without a GPU: $said" >&2; exit 1; }
[[ $said == *"no GPU"* && $(wc -l <<<"$said") = 1 ]] || { echo "without a GPU: $said" >&2; exit 1; }
