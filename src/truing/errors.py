"""What can go wrong and be put right by the person at the keyboard.

Exception
└── UserError            the command line prints it and exits 2; any other exception keeps its traceback
    ├── SettingError     a key or value in truing.toml or --set
    ├── BadRow           a row of an input file: file, line, remedy
    ├── DamagedArtifact  a folder whose bytes no longer match its manifest
    ├── Unknown          an id that names nothing; 404 at the studio's door
    └── Conflict         it can't be done as things stand now; 409 at the studio's door
"""


class UserError(Exception):
    """A mistake or circumstance that the user can mend.

    Args:
        what: one sentence that says what was found and what was needed.
        fix: what to type or change.
    """

    def __init__(self, what: str, *, fix: str) -> None:
        super().__init__(f"{what}\n  fix: {fix}")
        self.what = what
        self.fix = fix


class SettingError(UserError):
    """An unknown setting, or a value out of its bounds."""


class BadRow(UserError):
    """A row of an input file that can't be used.

    Args:
        file: the file as the user named it.
        line: its 1-based line or row number.
        what: what is wrong with it.
        fix: the remedy.
    """

    def __init__(self, file: str, line: int, what: str, *, fix: str) -> None:
        super().__init__(f"{file}, line {line}: {what}", fix=fix)
        self.line = line
        self.reason = what


class DamagedArtifact(UserError):
    """An artifact whose files differ from what its manifest says."""


class Unknown(UserError):
    """An id that names nothing in the project."""


class Conflict(UserError):
    """Something that was right to ask and can't be done as things stand: a key used before, a set of another kind."""
