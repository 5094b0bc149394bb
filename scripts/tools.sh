# Sourced by scripts/test after setup.sh: gets the programs beside Python that some tests need.
#
# find_prometheus    prometheus and promtool, which the tests of docs/ops run against
# find_chromium      a browser without a screen, which the tests of the dashboard look at the page with
# find_node          node and npm, which the JavaScript example needs
# find_supervisor    PyPI's supervisor, next to which the wheel is installed
#
# Each leaves its programs on the PATH or in VENV/bin if it can, and never fails. Debian packages are
# unpacked, not installed: no root, no password, no service, and nothing changes outside the virtual
# environment. Where a program cannot be had the tests that need it skip, and it is tried again after
# a day.

find_prometheus() {
  if has prometheus && has promtool; then return 0; fi
  if has_apt; then attempt Prometheus 20 fetch_prometheus; fi
}

find_chromium() {
  if has chromium || has chromium-browser || has google-chrome || has google-chrome-stable; then return 0; fi
  if has_apt; then attempt Chromium 100 fetch_chromium; fi
}

find_node() {
  if has node && has npm; then return 0; fi
  attempt Node 60 fetch_node
}

find_supervisor() {
  if [ -z "$(find "$VENV/wheels" -name 'supervisor-*.whl' 2>/dev/null)" ]; then
    attempt supervisor 1 fetch_supervisor
  fi
}

# -- how they are got -------------------------------------------------------------------------------

has() { [ -x "$VENV/bin/$1" ] || command -v "$1" >/dev/null; }

has_apt() { command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; }

# attempt NAME MEGABYTES COMMAND    once a day at most
attempt() {
  local failed=$VENV/.no-$1
  if [ -n "$(find "$failed" -mmin -1440 2>/dev/null)" ]; then return 0; fi
  say "Fetching $1 for the tests (once, $2 MB) …"
  if ! "$3" </dev/null >"$VENV/.fetch-$1.log" 2>&1; then
    say "$1 could not be had ($VENV/.fetch-$1.log); the tests that need it are skipped."
    touch "$failed" || true
  fi
}

fetch_prometheus() (
  work=$(mktemp -d) || exit 1
  trap 'rm -rf "$work"' EXIT
  cd "$work" && get_packages download prometheus &&
    dpkg-deb --extract prometheus_*.deb unpacked &&
    unpacked/usr/bin/prometheus --version &&
    unpacked/usr/bin/promtool --version &&
    mv unpacked/usr/bin/prometheus unpacked/usr/bin/promtool "$VENV/bin/"
)

# The browser, the libraries and the fonts that this machine lacks, and a command that finds them.
fetch_chromium() (
  work=$(mktemp -d "$VENV/chromium-XXXXXX") || exit 1
  trap 'rm -rf "$work"' EXIT
  cd "$work" || exit 1
  get_packages install chromium-headless-shell || get_packages install chromium || exit 1
  for package in archives/*.deb; do dpkg-deb --extract "$package" unpacked || exit 1; done
  programs=(unpacked/usr/lib/chromium/chromium{-headless-shell,})
  [ -x "${programs[0]}" ] || programs=("${programs[1]}")
  libraries=$(find unpacked/lib unpacked/usr/lib -name 'lib*.so*' ! -path '*/chromium/*' -printf '$here/%h\n' 2>/dev/null |
    sort -u | paste -sd :)
  {
    echo '#!/bin/sh'
    echo 'here=$(dirname "$(readlink -f "$0")")'
    echo "export LD_LIBRARY_PATH=\"$libraries\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}\""
    if [ -d unpacked/etc/fonts ]; then echo 'export FONTCONFIG_FILE="$here/fonts.conf"'; fi
    echo "exec \"\$here/${programs[0]}\" \"\$@\""
  } >chromium
  write_fonts_conf >fonts.conf
  chmod +x chromium && shows_text || exit 1
  rm -rf archives lists profile
  rm -rf "$VENV/chromium" && mv "$work" "$VENV/chromium" && ln -sf ../chromium/chromium "$VENV/bin/chromium"
)

# What the packages' own file says, with the fonts where they are now.
write_fonts_conf() {
  cat <<'EOF'
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir prefix="relative">unpacked/usr/share/fonts</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir prefix="relative">cache</cachedir>
  <alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
  <alias><family>serif</family><prefer><family>DejaVu Serif</family></prefer></alias>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
EOF
}

# A browser that starts may still fail at the first letter, when it finds no font.
shows_text() {
  local page='data:text/html,<b>text</b><script>document.title = document.querySelector("b").offsetWidth</script>'
  HOME=$work timeout 60 ./chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
    --user-data-dir="$work/profile" --dump-dom "$page" | grep '<title>[1-9]'
}

fetch_node() {
  PIP_DISABLE_PIP_VERSION_CHECK=1 timeout 180 "$VENV/bin/python" -m pip install --quiet --retries 1 --timeout 15 \
    --require-hashes --requirement "$ROOT/requirements/node.txt" &&
    "$VENV/bin/node" --version && "$VENV/bin/npm" --version
}

# get_packages download|install NAME    the .deb of a package into the working directory, or, with
# those that it needs and this machine lacks, into the folder archives
get_packages() {
  mkdir -p lists/partial archives/partial
  local options=(-qq -y --no-install-recommends --download-only -o APT::Sandbox::User= -o Debug::NoLocking=1
    -o Acquire::Retries=1 -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10
    -o Dir::Cache::Archives="$PWD/archives")
  if ! timeout 180 apt-get "${options[@]}" "$@"; then
    # No package lists, or old ones: read them into a place of our own.
    options+=(-o Dir::State::Lists="$PWD/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
    timeout 90 apt-get "${options[@]}" update
    timeout 180 apt-get "${options[@]}" "$@"
  fi
}

fetch_supervisor() {
  PIP_DISABLE_PIP_VERSION_CHECK=1 timeout 180 "$VENV/bin/python" -m pip download --quiet --no-deps \
    --require-hashes --requirement "$ROOT/requirements/packaging.txt" --dest "$VENV/wheels"
}
