#!/bin/sh
# Launcher of nvcc: keeps what ptxas says of the kernels in OBJECT.ptxas, where tools/cuda_report.py reads it; warnings and
# errors are shown as ever.    ptxas_report.sh [ccache] nvcc ... -o OBJECT ...
object="" before=""
for word in "$@"; do
  [ "$before" = -o ] && object="$word"
  before="$word"
done
[ -n "$object" ] || exec "$@"
"$@" 2>"$object.ptxas"
status=$?
grep -vE '^ptxas info|^ +[0-9]+ bytes stack frame|^ *$' "$object.ptxas" >&2
exit $status
