#!/bin/sh
# llama.cpp, to compare with: bench/peers/llamacpp.sh [native | avx2]
#
#   native  for this machine's instruction set, into build/peers/llamacpp (the default)
#   avx2    for AVX2, FMA and F16C only, into build/peers/llamacpp-avx2
#
# Downloads the source package llama-cpp-python 0.3.36 by name with pip, checks its SHA-256,
# unpacks its vendor/llama.cpp, mends one thing for old compilers (gcc_amx.h says what) and
# builds the programs that bench/compare calls: about 15 minutes on two cores, 0.5 GB.
# Nothing is installed. When it is built already it does nothing; when it was interrupted it
# goes on. JOBS=n sets how many compilers run at once.
set -eu
cd "$(dirname "$0")/../.."

version=0.3.36
sdist=llama_cpp_python-$version.tar.gz
sdist_sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
programs="llama-bench llama-server llama-quantize llama-cli llama-mtmd-cli"
peers=build/peers
source=$peers/source/llama_cpp_python-$version/vendor/llama.cpp
amx=$source/ggml/src/ggml-cpu/amx
mend=bench/peers/gcc_amx.h

say() { echo "llama.cpp: $*"; }
stop() { say "$*" >&2; exit 1; }

case "${1:-native}" in
  native) target=$peers/llamacpp
    flags="-DGGML_NATIVE=ON" ;;
  avx2) target=$peers/llamacpp-avx2
    flags="-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON
      -DGGML_BMI2=OFF -DGGML_AVX_VNNI=OFF -DGGML_AVX512=OFF -DGGML_AMX_TILE=OFF" ;;
  *) stop "usage: bench/peers/llamacpp.sh [native | avx2]" ;;
esac
# No curl, no OpenSSL, no web page: each of them would be looked for on the network or the disk.
flags="$flags -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF
  -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF
  -DLLAMA_BUILD_EXAMPLES=OFF"

# What was built and how; a changed flag or version builds again.
stamp="$version $(cksum <$mend) $(echo $flags)"
if [ "$(cat "$target/done" 2>/dev/null)" = "$stamp" ]; then
  say "$version is there: $target/bin"
  exit 0
fi

missing=
for need in cmake:cmake ninja:ninja-build g++:g++ python3:python3; do
  command -v "${need%%:*}" >/dev/null || missing="$missing ${need#*:}"
done
[ -z "$missing" ] || stop "missing: apt-get install$missing"

mkdir -p $peers/download $peers/source "$target"
exec 9>$peers/lock
flock -n 9 || stop "another build is at work in $peers"

if [ ! -f $peers/download/$sdist ]; then
  say "downloading the source package (77 MB)"
  python3 -m pip download --disable-pip-version-check --quiet --no-deps --no-cache-dir \
    --no-binary llama-cpp-python --dest $peers/download llama-cpp-python==$version ||
    stop "pip could not bring it; put $sdist by hand into $peers/download"
fi
found=$(sha256sum $peers/download/$sdist | cut -d' ' -f1)
[ "$found" = $sdist_sha256 ] ||
  stop "$peers/download/$sdist has SHA-256 $found, expected $sdist_sha256; delete it and try again"
if [ ! -f $source/.complete ]; then
  say "unpacking"
  tar -xzf $peers/download/$sdist -C $peers/source llama_cpp_python-$version/vendor/llama.cpp
  touch $source/.complete
fi
# The one change to the source, without which it does not run where it could use AMX.
cmp -s $mend $amx/gcc_amx.h || cp $mend $amx/gcc_amx.h
grep -q gcc_amx.h $amx/common.h || echo '#include "gcc_amx.h"' >>$amx/common.h

say "building into $target"
# shellcheck disable=SC2086 # words are meant
{
  cmake -S $source -B "$target" -G Ninja $flags >"$target/configure.log" 2>&1 ||
    { tail -n 20 "$target/configure.log" >&2; stop "cmake failed; see $target/configure.log"; }
  nice -n 10 ninja -C "$target" -j "${JOBS:-$(nproc)}" $programs
}
echo "$stamp" >"$target/done"
say "$version is built: $target/bin"
