"""What the system says about a file it can't read or write, as an error that a user can act on."""

from __future__ import annotations

import errno

from fmct.console.errors import FmctError

FULL = {errno.ENOSPC, errno.EDQUOT}
FREE_SPACE = "free some space"
OTHER_RIGHTS = "change the rights there, or name another place"
LOOK_AT_DISK = "see whether the disk or the network is all right"
FIXES = {
    **dict.fromkeys(FULL, FREE_SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM), OTHER_RIGHTS),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT), LOOK_AT_DISK),
    errno.EROFS: "name another place: the disk can only be read",
    errno.ENOTDIR: "name another place: on the way there is a file where a folder should be",
    errno.EISDIR: "name a file: this is a folder",
    errno.ENAMETOOLONG: "name another place: the path is too long",
    errno.EMFILE: "allow more open files (`ulimit -n`), or use fewer workers",
}
"""What to do, by what the system says; what isn't here may be a mistake of the program's own."""


def file_error(error: OSError) -> FmctError | None:
    """Return the error in three lines, or None where it says nothing that a user could mend.

    Args:
        error: as the system raised it, maybe without the file's name, as writers of tables do.
    """
    if error.errno not in FIXES or (not isinstance(error.filename, str) and error.errno not in FULL):
        return None
    what = "the disk is full" if error.errno in FULL else "a file or folder can't be read or written"
    where = error.filename if isinstance(error.filename, str) else "one of the files that are written"
    reason = str(error.strerror or error).splitlines()[0]
    return FmctError(f"{what} ({reason})", where, f"{FIXES[error.errno]}, and run the command again")
