# Sourced by scripts/test after setup.sh: gets the Prometheus that the tests of docs/ops run against.
#
# find_prometheus    leaves prometheus and promtool on the PATH or in VENV/bin if it can. Never fails.
# The Debian package is unpacked, not installed: no root, no password, no service, and nothing changes
# outside the virtual environment. Where that cannot be done the tests skip, and it is tried again
# after a day.

find_prometheus() {
  local failed=$VENV/.no-prometheus
  if command -v prometheus >/dev/null && command -v promtool >/dev/null; then return 0; fi
  if [ -x "$VENV/bin/prometheus" ] && [ -x "$VENV/bin/promtool" ]; then return 0; fi
  if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then return 0; fi
  if [ -n "$(find "$failed" -mmin -1440 2>/dev/null)" ]; then return 0; fi
  say "Fetching Prometheus for the tests of docs/ops (once, 20 MB) …"
  if ! fetch_prometheus </dev/null >/dev/null 2>&1; then
    say "Prometheus could not be had; the tests that need it are skipped."
    touch "$failed" || true
  fi
}

fetch_prometheus() (
  work=$(mktemp -d) || exit 1
  trap 'rm -rf "$work"' EXIT
  cd "$work" && mkdir -p lists/partial archives/partial || exit 1
  options=(-qq -o APT::Sandbox::User= -o Acquire::Retries=1 -o Acquire::http::Timeout=10
    -o Acquire::https::Timeout=10 -o Dir::Cache::Archives="$work/archives")
  if ! timeout 60 apt-get "${options[@]}" download prometheus; then
    # No package lists, or old ones: read them into a place of our own.
    options+=(-o Dir::State::Lists="$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
    timeout 90 apt-get "${options[@]}" update
    timeout 60 apt-get "${options[@]}" download prometheus || exit 1
  fi
  dpkg-deb --extract prometheus_*.deb unpacked &&
    unpacked/usr/bin/prometheus --version &&
    unpacked/usr/bin/promtool --version &&
    mv unpacked/usr/bin/prometheus unpacked/usr/bin/promtool "$VENV/bin/"
)
