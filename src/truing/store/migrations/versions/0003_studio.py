"""What the studio needs: sets of questions with their guidelines, repeats, drafts, counts of answers, and sign-in failures."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Plain statements: a batch on SQLite would make the tables anew and lose the triggers of 0002.
ADDED = {
    "question": [
        "set_id VARCHAR(32) REFERENCES question_set (id)",
        "repeat_of VARCHAR(32) REFERENCES question (id)",
        "only_for VARCHAR(36) REFERENCES annotator (id)",
        "answers INTEGER DEFAULT 0 NOT NULL",
        "open BOOLEAN DEFAULT {true} NOT NULL",
    ],
    "judgement": ["extra BOOLEAN DEFAULT {false} NOT NULL"],
    "assignment": [
        "set_id VARCHAR(32) REFERENCES question_set (id)",
        "number INTEGER DEFAULT 0 NOT NULL",
        "draft JSON",
        "answered BOOLEAN DEFAULT {false} NOT NULL",
    ],
    "invitation": ["name TEXT DEFAULT '' NOT NULL"],
}
# Index: table, columns, and which rows it holds. The next question of an annotator is found by these.
ADDED_INDEXES: dict[str, tuple[str, list[str], str | None]] = {
    "question_next": ("question", ["set_id", "position", "id"], "open"),
    "question_fewest": ("question", ["set_id", "answers", "position", "id"], "open"),
    "question_order": ("question", ["position"], None),
    "assignment_lease": ("assignment", ["annotator_id", "expires_at"], "NOT answered"),
    "assignment_number": ("assignment", ["annotator_id", "set_id", "number"], None),
    "judgement_of": ("judgement", ["question_id", "annotator_id"], None),
    "judgement_latest": ("judgement", ["annotator_id", "submitted_at"], None),
}
DROPPED_INDEXES = [("assignment", "annotator_id"), ("judgement", "question_id"), ("judgement", "annotator_id")]  # the new ones begin with the same columns
# A question that was asked before this migration counts its answers here.
ANSWERS = """
    UPDATE question SET answers = (
        SELECT count(DISTINCT judgement.annotator_id) FROM judgement
        WHERE judgement.question_id = question.id AND {skip} IS NULL
        AND NOT EXISTS (SELECT 1 FROM judgement AS newer WHERE newer.supersedes = judgement.id)
    )
"""
ANSWERED = """
    UPDATE assignment SET answered = {true} WHERE EXISTS (
        SELECT 1 FROM judgement WHERE judgement.question_id = assignment.question_id AND judgement.annotator_id = assignment.annotator_id
    )
"""


def upgrade() -> None:
    on_server = op.get_bind().dialect.name == "postgresql"
    op.create_table(
        "question_set",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("rules", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_question_set_round_id", "question_set", ["round_id"])
    op.create_table(
        "guideline",
        sa.Column("set_id", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["set_id"], ["question_set.id"]),
        sa.PrimaryKeyConstraint("set_id", "version"),
    )
    op.create_table(
        "sign_in_failure",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    for column in ("account", "address"):
        op.create_index(f"ix_sign_in_failure_{column}", "sign_in_failure", [column])
    words = {"true": "true", "false": "false"} if on_server else {"true": "1", "false": "0"}
    for table, columns in ADDED.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ADD COLUMN {column.format(**words)}")
    op.execute(ANSWERS.format(skip="judgement.answer ->> 'skip'"))
    op.execute("UPDATE question SET open = (answers < overlap)")
    op.execute(ANSWERED.format(**words))
    for name, (table, columns, rows) in ADDED_INDEXES.items():
        where = sa.text(rows) if rows else None
        op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
    for table, column in DROPPED_INDEXES:
        op.drop_index(f"ix_{table}_{column}", table)


def downgrade() -> None:
    for table, column in DROPPED_INDEXES:
        op.create_index(f"ix_{table}_{column}", table, [column])
    for name, (table, *_) in ADDED_INDEXES.items():
        op.drop_index(name, table)
    for table, columns in ADDED.items():
        for column in reversed(columns):
            op.execute(f"ALTER TABLE {table} DROP COLUMN {column.partition(' ')[0]}")
    op.drop_table("sign_in_failure")
    op.drop_table("guideline")
    op.drop_table("question_set")
