#!/bin/sh
# Launcher of nvcc: keeps what ptxas says of the kernels in OBJECT.ptxas, where tools/cuda_report.py reads it, and behind it the
# CPU time that the compilers took; warnings and errors are shown as ever.    ptxas_report.sh [ccache] nvcc ... -o OBJECT ...
object="" before=""
for word in "$@"; do
  [ "$before" = -o ] && object="$word"
  before="$word"
done
[ -n "$object" ] || exec "$@"
"$@" 2>"$object.ptxas"
status=$?
times >"$object.times" # of this shell, and of all that it has waited for
sed -n '2s/^/took /p' "$object.times" >>"$object.ptxas"
rm "$object.times"
grep -vE '^ptxas info|^ +[0-9]+ bytes stack frame|^ *$|^took ' "$object.ptxas" >&2
exit $status
