#!/usr/bin/env bash
# Puts together the native binary of @tensorflow/tfjs-node where its own download is not possible: the addon is compiled from the sources in the npm
# package, against the C libraries inside PyPI's tensorflow-cpu wheel. For comparisons only: nothing in the product needs it.
#
#     bench/peers/assemble-tfjs-node.sh [FOLDER FOR ABOUT 1 GB OF DOWNLOADS]
#
# Needs g++, unzip, pip (x86-64 Linux). Run `npm ci` first; `npm ci` also undoes it.
set -euo pipefail
cd "$(dirname "$0")/../.."
work="${1:-$(mktemp -d)}"
addon="$PWD/node_modules/@tensorflow/tfjs-node"
[ -d "$addon/binding" ] || { echo "There is no $addon: run npm ci (it is an optional dependency)." >&2; exit 2; }

mkdir -p "$work"
python3 -m pip download --quiet --no-deps --python-version 3.11 --only-binary=:all: --dest "$work" tensorflow-cpu==2.15.1
unzip -q -o "$work"/tensorflow_cpu-2.15.1-*.whl 'tensorflow/libtensorflow*' 'tensorflow/include/*' -d "$work"
(cd "$work" && npm pack --silent node-api-headers@1.9.0 && tar xzf node-api-headers-1.9.0.tgz)

mkdir -p "$addon/lib/napi-v8" "$addon/deps/lib"
cp "$work"/tensorflow/libtensorflow_cc.so.2 "$work"/tensorflow/libtensorflow_framework.so.2 "$addon/deps/lib/"
g++ -O2 -std=c++17 -fPIC -shared -DNAPI_VERSION=8 \
  -I"$work/package/include" -I"$work/tensorflow/include" -I"$addon" \
  "$addon/binding/tfjs_backend.cc" "$addon/binding/tfjs_binding.cc" -o "$addon/lib/napi-v8/tfjs_binding.node" \
  -L"$addon/deps/lib" -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2 -Wl,-rpath,'$ORIGIN/../../deps/lib'
node --input-type=module -e "await import('@tensorflow/tfjs-node'); console.log('@tensorflow/tfjs-node loads');" 2>/dev/null
