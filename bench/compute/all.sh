#!/bin/sh
# Everything that docs/compute.md compares with PyTorch and Opacus, and the pool, in about three minutes on an idle machine:
#
#     bench/compute/all.sh path/to/python
#
# The python has PyTorch and Opacus (bench/compute/engines.ts says how to make one).
set -eu
cd "$(dirname "$0")/../.."
python=${1:?path to a python with PyTorch and Opacus}
run() {
  echo "\$ npx tsx $*"
  npx --no-install tsx "$@"
  echo
}
run bench/compute/engines.ts --engines onnx --work train,predict --rounds 5 --budget-ms 150 --python "$python"
run bench/compute/engines.ts --engines onnx --threads 2 --rounds 7 --budget-ms 150 --python "$python"
run bench/compute/engines.ts --engines onnx --work private --rounds 7 --budget-ms 150 --python "$python" --opacus
run bench/compute/pool.ts --rounds 15
run bench/compute/roofline.ts
run bench/compute/private.ts --rounds 5
