"""The project's salt: the key under which names from outside are hashed, so that a hash tells nobody outside who it was."""

import os
import secrets
import tempfile
from pathlib import Path

BYTES = 32


def project_salt(root: Path) -> bytes:
    """The 32 bytes in the project's file `salt`, made at the first call and never changed; it stays out of the store and of exports."""
    place = root / "salt"
    if not place.exists():
        descriptor, fresh = tempfile.mkstemp(dir=root, prefix=".salt.")  # readable by its owner alone
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(BYTES))
                file.flush()
                os.fsync(file.fileno())
            _link_unless_there(Path(fresh), place)
        finally:
            Path(fresh).unlink()
    return place.read_bytes()


def _link_unless_there(fresh: Path, place: Path) -> None:
    """Give the file its name whole, or leave the one that another process gave a moment ago."""
    try:
        os.link(fresh, place)
    except FileExistsError:
        return
