"""The first schema: the event log with payloads apart, readers, codes, sign-in attempts and sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _log()
    _readers()
    _sign_in()


def _log() -> None:
    op.create_table(
        "settings",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "studies",
        sa.Column("study", sa.Text, primary_key=True),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("closed_at", sa.Text),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study", sa.Text, sa.ForeignKey("studies.study"), nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("reader", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("answers", sa.Text),
        sa.Column("at_server", sa.Text, nullable=False),
        sa.Column("payload_sha", sa.Text, nullable=False),
        sa.Column("previous", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.UniqueConstraint("study", "sequence", name="one_event_a_place"),
        sa.UniqueConstraint("study", "request_id", name="one_event_a_request"),
        sa.UniqueConstraint("study", "reader", "answers", name="one_answer_a_step"),
    )
    op.create_table(
        "payloads",
        sa.Column("event", sa.Integer, sa.ForeignKey("events.id"), primary_key=True),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )


def _readers() -> None:
    op.create_table(
        "readers",
        sa.Column("study", sa.Text, sa.ForeignKey("studies.study"), primary_key=True),
        sa.Column("reader", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("withdrawn_at", sa.Text),
        sa.UniqueConstraint("study", "number", name="one_reader_a_number"),
    )


def _sign_in() -> None:
    op.create_table(
        "codes",
        sa.Column("handle", sa.Text, primary_key=True),
        sa.Column("study", sa.Text, sa.ForeignKey("studies.study"), nullable=False),
        sa.Column("reader", sa.Text),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("handle", sa.Text, nullable=False),
        sa.Column("at_server", sa.Text, nullable=False),
    )
    op.create_index("ix_attempts_at_server", "attempts", ["at_server"])
    op.create_table(
        "sessions",
        sa.Column("token_sha", sa.Text, primary_key=True),
        sa.Column("study", sa.Text, sa.ForeignKey("studies.study"), nullable=False),
        sa.Column("reader", sa.Text),
        sa.Column("expires_at", sa.Text, nullable=False),
    )
