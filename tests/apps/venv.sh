#!/bin/sh
# Creates tests/apps/.venv with everything in requirements.txt, once, and prints its path.
#
# Safe to call from several tests at once (a lock) and cheap when there is nothing to do (a stamp
# with the hash of requirements.txt and the Python version). $PYTHON names another interpreter.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
venv="$here/.venv"
python=${PYTHON:-python3}

fail() {
    echo "venv.sh: $1" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 || fail "'$python' not found: install Python 3.11 or newer (Debian: apt install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$python" --version) is too old: the applications need Python 3.11 or newer"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "this Python cannot create virtual environments: install its venv module (Debian: apt install python3-venv)"

# Python's own flock, since not every system has the flock command. The lock goes with the process.
exec "$python" - "$here" "$venv" <<'PYTHON'
import fcntl, hashlib, os, pathlib, shutil, subprocess, sys, sysconfig, venv

here, target = map(pathlib.Path, sys.argv[1:])
requirements = here / "requirements.txt"
stamp = target / "stamp"
wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode() + bytes(target)).hexdigest()

with open(requirements) as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(target, ignore_errors=True)
        venv.create(target, with_pip=True)
        install = [target / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", requirements]
        # To stderr, because stdout is this script's answer.
        if subprocess.run(install, stdout=sys.stderr).returncode != 0:
            sys.exit("venv.sh: pip could not install requirements.txt (its reason is above)")
        # The applications import litepilot_middleware as if it were installed.
        packages = sysconfig.get_path("purelib", "venv", vars={"base": str(target)})
        pathlib.Path(packages, "litepilot_tests.pth").write_text(f"{here.parent.parent / 'python'}\n")
        stamp.write_text(wanted)
print(target)
PYTHON
