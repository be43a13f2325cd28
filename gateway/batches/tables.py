"""The tables of batches, and the states of one. `owner` is whose batch it is, as in the tables of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Float, Index, LargeBinary, Text
from sqlmodel import Field, SQLModel

if TYPE_CHECKING:
    from sqlalchemy import Table


VALIDATING, IN_PROGRESS, CANCELLING = "validating", "in_progress", "cancelling"
COMPLETED, CANCELLED, EXPIRED, FAILED = "completed", "cancelled", "expired", "failed"
RUNNING = (VALIDATING, IN_PROGRESS)
UNFINISHED = (*RUNNING, CANCELLING)


class Batch(SQLModel, table=True):
    """A batch with the number of its lines: in all, answered, and in error. Times are Unix seconds.

    While `runner` works on it, it renews `claimed_until`; afterwards anybody may take the batch over.
    """

    __tablename__ = "batches"
    __table_args__ = (Index("batches_owner", "owner", "created_at"), Index("batches_status", "status"))

    batch_id: str = Field(primary_key=True, sa_type=Text)
    owner: str = Field(sa_type=Text)
    key_id: str | None = Field(default=None, sa_type=Text)
    endpoint: str = Field(sa_type=Text)
    input_file_id: str = Field(sa_type=Text)
    completion_window: str = Field(sa_type=Text)
    metadata_json: str = Field(sa_type=Text)
    status: str = Field(default=VALIDATING, sa_type=Text)
    created_at: float = Field(sa_type=Float)
    expires_at: float = Field(sa_type=Float)
    in_progress_at: float | None = Field(default=None, sa_type=Float)
    cancelling_at: float | None = Field(default=None, sa_type=Float)
    ended_at: float | None = Field(default=None, sa_type=Float)
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file_id: str | None = Field(default=None, sa_type=Text)
    error_file_id: str | None = Field(default=None, sa_type=Text)
    problem: str | None = Field(default=None, sa_type=Text)
    runner: str | None = Field(default=None, sa_type=Text)
    claimed_until: float = Field(default=0.0, sa_type=Float)


class BatchResultRow(SQLModel, table=True):
    """The result of one line of a batch that runs, as it will be in the output file or the error file."""

    __tablename__ = "batch_results"

    batch_id: str = Field(primary_key=True, sa_type=Text)
    number: int = Field(primary_key=True)
    is_error: bool
    line: bytes = Field(sa_type=LargeBinary)


JOBS: Table = SQLModel.metadata.tables["batches"]
RESULTS: Table = SQLModel.metadata.tables["batch_results"]
TABLES = [JOBS, RESULTS]
