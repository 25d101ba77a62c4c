"""Codes carry a seal that binds them to their reader, sign-ins one made with the key; attempts are no longer stored.

Sign-ins of before end: readers type their code again, and no answer is touched.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("codes", sa.Column("tag", sa.LargeBinary))
    op.add_column("codes", sa.Column("seal", sa.Text))
    op.drop_index("ix_attempts_at_server", "attempts")
    op.drop_table("attempts")
    op.drop_table("sessions")
    op.create_table(
        "sessions",
        sa.Column("token_mac", sa.Text, primary_key=True),
        sa.Column("study", sa.Text, sa.ForeignKey("studies.study"), nullable=False),
        sa.Column("reader", sa.Text),
        sa.Column("expires_at", sa.Text, nullable=False),
        sa.Column("seal", sa.Text, nullable=False),
    )
