#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Training steps under real mpirun: the weights after 12 steps have the same bits on 1 to 4 ranks and 1 or 2 threads,
# for any size of bucket, the loss has fallen, and another seed gives other bits. `fast` agrees to rounding.
set -u
command -v mpirun >/dev/null || { echo "skipped: no mpirun"; exit 77; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
bench() { # RANKS THREADS [key=value ...]
    local ranks=$1 threads=$2
    shift 2
    OMP_NUM_THREADS=$threads mpirun --oversubscribe --bind-to none -n "$ranks" "$ORRERY_BIN/orrery-rank" \
        --config configs/tiny.yaml --task step-bench train.steps=12 train.batch=8 data.frames=5 "$@" |
        sed 's/.*"loss":\([^,]*\),"weights_sha256":"\([0-9a-f]*\)".*/\2 \1/'
}
want=$(bench 1 1)
[ ${#want} -gt 64 ] || { echo "one rank printed '$want'"; exit 1; }
failed=0
for shape in "2 1" "3 1" "4 1" "1 2" "2 2"; do
    got=$(bench $shape)
    [ "$got" = "$want" ] || { echo "ranks and threads $shape: $got, one rank: $want"; failed=1; }
done
# However the gradients are cut, and whether anything overlaps: the same bits.
for cut in comm.bucket_mb=0.001 comm.bucket_mb=0.02 comm.overlap=false; do
    for ranks in 1 2 3 4; do
        got=$(bench $ranks 1 $cut)
        [ "$got" = "$want" ] || { echo "$ranks ranks, $cut: $got, without: $want"; failed=1; }
    done
done
other=$(bench 1 1 run.seed=2)
[ "${other% *}" != "${want% *}" ] || { echo "another seed gives the same weights"; failed=1; }
fast=$(bench 2 1 comm.reduce=fast comm.bucket_mb=0.001)
awk -v a="${fast#* }" -v b="${want#* }" 'BEGIN { d = a - b; exit !(d < 0.01 * b && -d < 0.01 * b) }' ||
    { echo "fast: loss ${fast#* }, exact ${want#* }"; failed=1; }
first=$(bench 1 1 train.steps=1)
awk -v a="${want#* }" -v b="${first#* }" 'BEGIN { exit !(a < b) }' ||
    { echo "the loss did not fall: ${first#* } to ${want#* }"; failed=1; }
[ $failed = 0 ] && echo "weights ${want%% *}, loss ${first#* } to ${want#* }"
exit $failed
