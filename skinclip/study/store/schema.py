"""The tables of the study store. `migrations` makes them; a test compares the two."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()
settings = sa.Table(
    "settings",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
studies = sa.Table(
    "studies",
    metadata,
    sa.Column("study", sa.Text, primary_key=True),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("closed_at", sa.Text),
)
events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.Text, sa.ForeignKey("studies.study"), nullable=False),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("reader", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("answers", sa.Text),  # the step again where the event answers it; nulls are never equal
    sa.Column("at_server", sa.Text, nullable=False),
    sa.Column("payload_sha", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.UniqueConstraint("study", "sequence", name="one_event_a_place"),
    sa.UniqueConstraint("study", "request_id", name="one_event_a_request"),
    sa.UniqueConstraint("study", "reader", "answers", name="one_answer_a_step"),
)
payloads = sa.Table(
    "payloads",
    metadata,
    sa.Column("event", sa.Integer, sa.ForeignKey("events.id"), primary_key=True),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
readers = sa.Table(
    "readers",
    metadata,
    sa.Column("study", sa.Text, sa.ForeignKey("studies.study"), primary_key=True),
    sa.Column("reader", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("withdrawn_at", sa.Text),
    sa.UniqueConstraint("study", "number", name="one_reader_a_number"),
)
codes = sa.Table(
    "codes",
    metadata,
    sa.Column("handle", sa.Text, primary_key=True),
    sa.Column("study", sa.Text, sa.ForeignKey("studies.study"), nullable=False),
    sa.Column("reader", sa.Text),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("tag", sa.LargeBinary),  # two keyed bytes of the code: most wrong ones are refused at once
    sa.Column("seal", sa.Text),  # binds the code to its reader; made with the key
)
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("token_mac", sa.Text, primary_key=True),
    sa.Column("study", sa.Text, sa.ForeignKey("studies.study"), nullable=False),
    sa.Column("reader", sa.Text),
    sa.Column("expires_at", sa.Text, nullable=False),
    sa.Column("seal", sa.Text, nullable=False),
)
