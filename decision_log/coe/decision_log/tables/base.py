"""The base class of all tables, and their column types."""

from typing import Annotated, ClassVar

from sqlalchemy import BigInteger, Integer, MetaData, Table, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

METADATA = MetaData()

TextKey = Annotated[str, Field(primary_key=True, sa_type=Text)]
NumberKey = Annotated[int, Field(primary_key=True)]
RealKey = Annotated[float, Field(primary_key=True)]
LargeKey = Annotated[int, Field(primary_key=True, sa_type=BigInteger().with_variant(Integer, "sqlite"))]
"""A key that outgrows 32 bits. SQLite numbers only the rows of an INTEGER key."""

String = Annotated[str, Field(sa_type=Text)]
OptionalString = Annotated[str | None, Field(sa_type=Text)]
Large = Annotated[int, Field(sa_type=BigInteger)]


class Row(SQLModel, registry=registry(metadata=METADATA)):
    """The base of every table, with a schema of its own: a program that embeds `coe` may have other SQLModel tables."""

    __table__: ClassVar[Table]
