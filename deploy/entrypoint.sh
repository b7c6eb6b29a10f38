#!/bin/sh
# Runs `vultus` in a container. Weights that the image brings are copied into the data directory, which alone is writable;
# every load compares them with their digests.
set -eu
umask 077
for weights in /opt/vultus/models/*; do
  [ -e "$weights" ] && [ "${1-}" != db ] || continue
  mkdir -p "$VULTUS_DATA_DIR/models"
  copy="$VULTUS_DATA_DIR/models/${weights##*/}"
  if [ ! -e "$copy" ]; then
    cp "$weights" "$copy.new"
    mv "$copy.new" "$copy"
  fi
done
exec vultus "$@"
