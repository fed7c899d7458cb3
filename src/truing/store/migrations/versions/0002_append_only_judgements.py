"""The database itself refuses to change or delete a judgement."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

REFUSAL = "a judgement is never changed or deleted: add one that supersedes it"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"CREATE FUNCTION judgement_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$")
        op.execute("CREATE TRIGGER judgement_append_only BEFORE UPDATE OR DELETE ON judgement FOR EACH ROW EXECUTE FUNCTION judgement_refuse()")
        op.execute("CREATE TRIGGER judgement_not_emptied BEFORE TRUNCATE ON judgement FOR EACH STATEMENT EXECUTE FUNCTION judgement_refuse()")
    else:
        for verb in ("UPDATE", "DELETE"):
            op.execute(f"CREATE TRIGGER judgement_no_{verb.lower()} BEFORE {verb} ON judgement BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER judgement_not_emptied ON judgement")
        op.execute("DROP TRIGGER judgement_append_only ON judgement")
        op.execute("DROP FUNCTION judgement_refuse()")
    else:
        op.execute("DROP TRIGGER judgement_no_delete")
        op.execute("DROP TRIGGER judgement_no_update")
