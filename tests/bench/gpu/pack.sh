#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a folder that first_light.sh runs from on a GPU machine that lacks the libraries of a build: programs, the plug-in
# with machine code for sm_90a only, Open MPI, and every library they need but glibc, libstdc++, the driver and CUDA's
# (cuBLASLt is 500 MB; where there is a GPU there is one). With FlashAttention-3 for peers.py where peer_fa3.sh's variables
# are set. Then, there: FOLDER/first_light.sh MINUTES.
# Usage: tests/bench/gpu/pack.sh [FOLDER]   (build/pack)   JOBS: compile jobs (1)
set -euo pipefail
cd "$(dirname "$0")/../../.."
to=${1:-build/pack} build=build/pack-build jobs=${JOBS:-1}
PATH=$PATH:/usr/local/cuda/bin
rm -rf "$to"
mkdir -p "$to/bin" "$to/lib/openmpi3" "$to/lib/pmix" "$to/share"
launcher=$(command -v ccache || true)
cmake -S . -B "$build" -G Ninja -DORRERY_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90a-real -DCMAKE_C_COMPILER_LAUNCHER="$launcher" \
  -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher" >/dev/null
ninja -C "$build" -j "$jobs" orrery_cuda orrery-rank orrery test_ops
OUT=$build/attention tests/bench/gpu/attention.sh build
cp "$build"/bin/{orrery,orrery-rank,liborrery_cuda.so} "$build/tests/test_ops" "$to/bin"
cp "$build"/attention/{probes,bench_attention,libbench_attention.so} "$to/bin"
if [ -n "${ORRERY_FLASH_ATTENTION:-}" ] && [ -n "${ORRERY_CUTLASS:-}" ]; then
  OUT=$build/attention tests/bench/gpu/peer_fa3.sh
  cp "$build/attention/libpeer_fa3.so" "$to/bin"
else
  echo "FlashAttention-3 is left out: ORRERY_FLASH_ATTENTION and ORRERY_CUTLASS name no checkouts"
fi
cp -L "$(command -v mpirun)" "$to/bin/mpirun"
cp tests/bench/gpu/{first_light.sh,peers.py,peer_step.py} "$to"
git log -1 --format='%h %cs' >"$to/COMMIT" 2>/dev/null || true

# Open MPI's parts, without those for networks of clusters.
components=$(ompi_info --path pkglibdir --parsable | sed -n 's/^path:pkglibdir://p')
for part in "$components"/*.so; do
  case $part in *ofi* | *ucx* | *psm* | *portals* | *usnic* | *monitoring* | *openib* | *_pmix_s* | *memkind*) continue ;; esac
  cp "$part" "$to/lib/openmpi3"
done
pmix=$(ldd "$components"/mca_pmix_*.so | sed -n 's/.*libpmix\.so[^ ]* => \([^ ]*\) .*/\1/p' | head -n 1)
if [ -n "$pmix" ]; then
  pmix=$(dirname "$(readlink -f "$pmix")")
  for folder in "$pmix/pmix" "$pmix/../lib/pmix"; do
    if [ -d "$folder" ]; then cp "$folder"/*.so "$to/lib/pmix"; break; fi
  done
fi
cp -rL "$(ompi_info --path pkgdatadir --parsable | sed -n 's/^path:pkgdatadir://p')" "$to/share/openmpi"

# What all of that needs.
find "$to" -type f \( -name '*.so*' -o -perm -u+x \) ! -name '*.sh' ! -name '*.py' -print0 | xargs -0 -n 1 ldd 2>/dev/null |
  sed -n 's/^\t\([^ ]*\) => \(\/[^ ]*\) .*/\2/p' | sort -u |
  grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|libutil|libstdc\+\+|libgcc_s|libcuda|libcublas|libcublasLt|libnvidia[^/]*)\.so' |
  while read -r library; do cp -L "$library" "$to/lib"; done
find "$to" -type f \( -name '*.so*' -o -path '*/bin/*' \) -exec strip --strip-unneeded {} + 2>/dev/null || true
size=$(du -sm "$to" | cut -f1)
echo "$to: $size MB, $(find "$to/lib" -type f | wc -l) libraries, glibc $(objdump -T "$to"/bin/* "$to"/lib/*.so* 2>/dev/null |
  grep -oE 'GLIBC_2\.[0-9]+' | sort -uV | tail -n 1) or later"
if [ "$size" -gt 60 ]; then echo "$to is larger than 60 MB" >&2; exit 1; fi
