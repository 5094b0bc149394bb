# Sourced by the scripts beside it: creates the virtual environment and installs the package.
#
# prepare SET    sets VENV and installs what requirements/SET.txt locks (run, test, fuzz or bench)
#
# pip checks the hash of every package. Repeating it is safe, and takes milliseconds when nothing
# has changed.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${BYBIT_PIPELINE_VENV:-$ROOT/.venv}

say() { printf '%s\n' "$*" >&2; }

find_python() {
  local name
  for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  say "bybit-pipeline needs Python 3.11 or newer on the PATH (or in PYTHON)."
  return 1
}

prepare() {
  local locked=$ROOT/requirements/$1.txt stamp=$VENV/.setup-$1 wanted
  mkdir -p "$VENV"
  exec 9>"$VENV/.setup.lock"
  command -v flock >/dev/null && flock 9
  wanted="$(cat "$ROOT/pyproject.toml" "$locked" | cksum) $ROOT"
  if [ ! -x "$VENV/bin/python" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    say "Setting up $VENV (once, about a minute) …"
    create_venv
    install --require-hashes --requirement "$locked"
    install --no-deps --no-build-isolation --editable "$ROOT"
    printf '%s' "$wanted" >"$stamp"
  fi
  # Where Python must not write bytecode, every process would compile all modules at every start.
  [ -z "${PYTHONDONTWRITEBYTECODE:-}" ] ||
    "$VENV/bin/python" -m compileall -q "$ROOT/shared" "$ROOT/processes" "$ROOT/supervisor" >&2 ||
    say "Cannot write bytecode: every start will take longer."
  exec 9>&-
}

create_venv() {
  local python
  [ ! -x "$VENV/bin/pip" ] || return 0
  python=$(find_python)
  if ! "$python" -m venv "$VENV" >&2; then
    say "Cannot create a virtual environment; on Debian and Ubuntu: apt install python3-venv"
    return 1
  fi
}

install() {
  PIP_DISABLE_PIP_VERSION_CHECK=1 "$VENV/bin/python" -m pip install --quiet "$@" >&2
}
