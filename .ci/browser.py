"""Sees that there is a chromium for the tests that drive a browser: installs Debian's where there is none.

As root, or by sudo where it asks for no password. Elsewhere it says what to install, and the tests that need it are
skipped; with CLIPMILL_CI in the environment (`.ci/run`) that is an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")  # as tests/browser.py looks for it
INSTALL = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core")


def main() -> int:
    if os.environ.get("CHROMIUM") or any(map(shutil.which, NAMES)):
        return 0
    if installed():
        return 0
    print(
        "There is no chromium, and it can't be installed here (no root, or no apt): the tests that drive a browser are "
        "skipped. Install it, or set CHROMIUM to its path.",
        file=sys.stderr,
    )
    return 1 if os.environ.get("CLIPMILL_CI") else 0


def installed() -> bool:
    if shutil.which("apt-get") is None:
        return False
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if as_root and (shutil.which("sudo") is None or subprocess.run([*as_root, "true"], capture_output=True).returncode):
        return False
    environment = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive"]
    print("Installing chromium for the tests that drive a browser …")
    for command in (("apt-get", "update", "-qq"), INSTALL):
        if subprocess.run([*environment, *command], stdout=subprocess.DEVNULL).returncode:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
