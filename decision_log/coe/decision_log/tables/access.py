"""Tables of keys and teams, of the admin log and of batches."""

from sqlalchemy import Index
from sqlmodel import Field

from coe.decision_log.tables.base import NumberKey, OptionalString, Row, String, TextKey


class AdminLogRow(Row, table=True):
    """A line of the admin log: what an admin did."""

    __tablename__ = "access_log"

    number: NumberKey
    at: float
    actor: String
    action: String
    subject: String
    before: String
    after: String
    link: String


class KeyRow(Row, table=True):
    """A key. `digest` is the SHA-256 of its secret; the digest before a rotation works until `old_until`."""

    __tablename__ = "access_keys"

    key_id: TextKey
    name: String
    grant_json: String
    digest: bytes = Field(unique=True)
    old_digest: bytes | None
    old_until: float | None
    created_at: float
    revoked_at: float | None


class TeamRow(Row, table=True):
    """A team with limits of its own, beside those of its keys."""

    __tablename__ = "access_teams"

    team: TextKey
    grant_json: String


class BatchRow(Row, table=True):
    """A batch with its numbers of lines: total, completed and failed. Times are Unix seconds.

    While `runner` works on it, it renews `claimed_until`; afterwards any gateway may take the batch over.
    """

    __tablename__ = "batches"
    __table_args__ = (Index("batches_owner", "owner", "created_at"), Index("batches_status", "status"))

    batch_id: TextKey
    owner: String
    endpoint: String
    input_file_id: String
    completion_window: String
    metadata_json: String
    created_at: float
    expires_at: float
    key_id: OptionalString = None
    status: String = "validating"
    in_progress_at: float | None = None
    cancelling_at: float | None = None
    ended_at: float | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file_id: OptionalString = None
    error_file_id: OptionalString = None
    problem: OptionalString = None
    runner: OptionalString = None
    claimed_until: float = 0.0


class BatchResultRow(Row, table=True):
    """The result of one line of a running batch, as in the output file or the error file."""

    __tablename__ = "batch_results"

    batch_id: TextKey
    number: NumberKey
    is_error: bool
    line: bytes
