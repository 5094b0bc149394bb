# Sourced by the scripts beside it: makes the virtual environment and installs the package.
#
# prepare EXTRAS    leaves VENV set and the package installed with its locked dependencies.
# Safe to repeat and, when nothing changed, done in milliseconds.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${BYBIT_PIPELINE_VENV:-$ROOT/.venv}

say() { printf '%s\n' "$*" >&2; }

find_python() {
  local name
  for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  say "bybit-pipeline needs Python 3.11 or newer on the PATH (or in PYTHON)."
  return 1
}

prepare() {
  local extras=$1 stamp wanted python
  mkdir -p "$VENV"
  exec 9>"$VENV/.setup.lock"
  command -v flock >/dev/null && flock 9
  stamp=$VENV/.setup-${extras:-plain}
  wanted=$(cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt" | cksum)
  if [ ! -x "$VENV/bin/python" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted $ROOT" ]; then
    python=$(find_python)
    say "Setting up $VENV (once, about a minute) …"
    if [ ! -x "$VENV/bin/pip" ] && ! "$python" -m venv "$VENV" >&2; then
      say "Could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv"
      return 1
    fi
    PIP_CONSTRAINT=$ROOT/constraints.txt PIP_BUILD_CONSTRAINT=$ROOT/constraints.txt \
      PIP_DISABLE_PIP_VERSION_CHECK=1 \
      "$VENV/bin/python" -m pip install --quiet --editable "$ROOT${extras:+[$extras]}" >&2
    printf '%s' "$wanted $ROOT" >"$stamp"
  fi
  # Where Python may not do it by itself, every process would compile all of it at every start.
  [ -z "${PYTHONDONTWRITEBYTECODE:-}" ] ||
    "$VENV/bin/python" -m compileall -q "$ROOT/shared" "$ROOT/processes" "$ROOT/supervisor" >&2 ||
    say "The bytecode could not be kept: every start will take longer."
  exec 9>&-
}
